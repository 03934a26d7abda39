"""Places, budget and blocks: who gets them, who waits, who gives them back."""

from __future__ import annotations

from setpoint.engine.assembly import Assembler, victims
from setpoint.engine.kv_blocks import BlockPool
from setpoint.engine.request import GenerationRequest, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.policy.decisions import Reason, StepPlan

BLOCK = 4


def sequence(number: int, prompt: int, *, family: int | None = None) -> Sequence:
    """A prompt of its own, or the beginning of its family's."""
    first = 1000 * (number if family is None else family)
    request = GenerationRequest(tuple(range(first, first + prompt)), SamplingParams(max_tokens=50))
    return Sequence(number, request, arrived_s=0.0, max_tokens=50)


def plan(*order: int, budget: int = 100, places: int = 10, preempt: tuple[int, ...] = ()) -> StepPlan:
    return StepPlan(order, budget, places, Reason("test"), preempt_order=preempt)


class Stage:
    """An assembler with its queues; ``step`` does what the loop does, every emitting item gaining one token."""

    def __init__(self, blocks: int) -> None:
        self.pool = BlockPool(blocks, BLOCK)
        self.assembler = Assembler(self.pool)
        self.running: dict[int, Sequence] = {}
        self.waiting: dict[int, Sequence] = {}

    def add(self, *sequences: Sequence) -> None:
        self.waiting.update({each.sequence_id: each for each in sequences})

    def step(self, chosen: StepPlan) -> dict[int, int]:
        """Tokens computed by request id."""
        made = self.assembler.assemble(chosen, self.running, self.waiting)
        for each in made.preempted:
            self.waiting[each.sequence_id] = self.running.pop(each.sequence_id)
        for each in made.joined:
            self.running[each.sequence_id] = self.waiting.pop(each.sequence_id)
            each.first_scheduled_s = 0.0
        for item in made.batch.items:
            item.sequence.computed = item.start + item.count
            assert item.emits == (item.sequence.computed == len(item.sequence.tokens))
            if item.emits:
                item.sequence.emit(7, 0.0)
            self.assembler.publish_computed(item.sequence)
        self.pool.check_integrity([each.blocks for each in self.running.values()])
        return {item.sequence.sequence_id: item.count for item in made.batch.items}

    def end(self, number: int) -> None:
        self.assembler.release(self.running.pop(number))


def test_the_budget_is_given_out_in_the_plans_order() -> None:
    stage = Stage(100)
    stage.add(sequence(1, 10), sequence(2, 10), sequence(3, 10))
    assert stage.step(plan(2, 1, 3, budget=15)) == {2: 10, 1: 5}
    assert list(stage.waiting) == [3]
    assert stage.step(plan(1, 3, budget=7)) == {2: 1, 1: 5, 3: 2}


def test_places_are_kept() -> None:
    stage = Stage(100)
    stage.add(sequence(1, 4), sequence(2, 4), sequence(3, 4))
    assert stage.step(plan(1, 2, 3, places=2)) == {1: 4, 2: 4}
    assert stage.step(plan(3, places=2)) == {1: 1, 2: 1}


def test_ids_the_plan_should_not_have_named_are_passed_over() -> None:
    stage = Stage(100)
    stage.add(sequence(1, 4), sequence(2, 8))
    assert stage.step(plan(1)) == {1: 4}
    assert stage.step(plan(99, 1, 2)) == {1: 1, 2: 8}, "one is gone, one decodes already, one may join"


def test_a_prompt_under_way_goes_on_behind_one_that_finds_no_room() -> None:
    """Seen: the urgent request waited for blocks held by the prompt behind it, which waited for the urgent one, for ever."""
    stage = Stage(10)
    stage.add(sequence(1, 30), sequence(2, 20))
    assert stage.step(plan(1, budget=8)) == {1: 8}
    assert stage.step(plan(2, 1, budget=8)) == {1: 8}


def test_nobody_overtakes_one_that_found_no_room() -> None:
    stage = Stage(10)
    stage.add(sequence(1, 20), sequence(2, 30), sequence(3, 2))
    assert stage.step(plan(1, 2, 3)) == {1: 20}


def test_a_join_leaves_a_block_for_each_running_request() -> None:
    stage = Stage(6)
    stage.add(sequence(1, 8), sequence(2, 16))
    assert stage.step(plan(1, 2)) == {1: 8}, "six blocks: two and four fit, but then the first could not go on"
    alone = Stage(4)
    alone.add(sequence(1, 16))
    assert alone.step(plan(1)) == {1: 16}, "a lone request may take everything"


def test_a_decode_without_a_block_takes_those_of_the_first_in_the_preemption_order() -> None:
    stage = Stage(5)
    stage.add(sequence(1, 4), sequence(2, 4), sequence(3, 3))
    assert stage.step(plan(1, 2, 3)) == {1: 4, 2: 4, 3: 3}
    assert stage.step(plan(preempt=(2, 1, 3))) == {1: 1, 2: 1, 3: 1}, "blocks four and five"
    assert stage.step(plan(preempt=(2, 1, 3))) == {1: 1, 3: 1}, "the third needed one more, the second lost its own"
    victim = stage.waiting[2]
    assert (victim.preemptions, victim.computed, victim.blocks) == (1, 0, [])
    assert victim.emitted == 2, "what was emitted stays"


def test_nobody_joins_in_a_step_that_preempted() -> None:
    stage = Stage(3)
    stage.add(sequence(1, 4), sequence(2, 3), sequence(3, 1))
    stage.step(plan(1, 2))
    stage.step(plan())
    assert stage.step(plan(3, preempt=(1,))) == {2: 1}
    assert set(stage.waiting) == {1, 3}


def test_one_that_is_first_in_the_preemption_order_preempts_itself() -> None:
    stage = Stage(3)
    stage.add(sequence(1, 4), sequence(2, 3))
    stage.step(plan(1, 2))
    stage.step(plan())
    assert stage.step(plan(preempt=(2,))) == {1: 1}
    assert set(stage.waiting) == {2}


def test_victims_not_named_come_after_newest_first() -> None:
    running = {number: sequence(number, 4) for number in (1, 2, 3, 4)}
    assert [each.sequence_id for each in victims(plan(preempt=(3, 9)), running)] == [3, 4, 2, 1]


def test_a_repeated_prefix_is_shared_and_only_the_rest_computed() -> None:
    stage = Stage(20)
    stage.add(sequence(1, 12, family=1), sequence(2, 14, family=1), sequence(3, 12, family=1), sequence(4, 3, family=1))
    stage.step(plan(1))
    uncached = {number: stage.assembler.uncached_tokens(each) for number, each in stage.waiting.items()}
    assert uncached == {2: 2, 3: 4, 4: 3}, "full blocks only, and the last token is always computed"
    used = stage.pool.used
    assert stage.step(plan(2, 3, 4)) == {1: 1, 2: 2, 3: 4, 4: 3}
    assert stage.pool.used == used + 1 + 1 + 1 + 1
    assert stage.running[2].blocks[:3] == stage.running[1].blocks[:3]
    assert [stage.running[n].cached_tokens for n in (1, 2, 3, 4)] == [0, 12, 8, 0]


def test_a_cached_prefix_loses_its_end_to_eviction_before_its_beginning() -> None:
    """Seen: the first block went first, and with it the whole prefix, while the rest kept its memory for nothing."""
    stage = Stage(4)
    stage.add(sequence(1, 16))
    stage.step(plan(1))
    stage.end(1)
    again = sequence(2, 16)
    again.request = GenerationRequest(tuple(range(1000, 1016)))
    again.tokens = list(range(1000, 1016))
    assert stage.assembler.uncached_tokens(again) == 4
    stage.pool.allocate(1)
    assert stage.assembler.uncached_tokens(again) == 4, "the last of four full blocks was evicted: it was not wanted anyway"
    stage.pool.allocate(1)
    assert stage.assembler.uncached_tokens(again) == 8


def test_a_preempted_request_finds_its_own_blocks_again() -> None:
    stage = Stage(6)
    stage.add(sequence(1, 8), sequence(2, 8))
    stage.step(plan(1))
    assert stage.step(plan(2))[2] == 8
    while 2 in stage.running:
        stage.step(plan(preempt=(2,)))
    victim = stage.waiting[2]
    stage.end(1)
    missing = len(victim.tokens)
    assert 1 <= stage.step(plan(2))[2] < missing - 4
    assert victim.cached_tokens == 0, "the prefix hits of a request are those of its first start"
