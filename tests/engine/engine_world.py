"""Random worlds for the step loop: requests arrive, are cancelled, and run on an executor whose memory can be checked."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from hypothesis import strategies as st

from setpoint.engine.batch import Batch, BatchItem, StepOutput
from setpoint.engine.emission import Emission
from setpoint.engine.request import FinishReason, GenerationRequest, Rejected, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.simulated import SimulatedExecutor, VirtualClock, counting_tokens
from setpoint.engine.speculation.building import build_speculator
from setpoint.engine.speculation.simulated import PartlyRight
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.step_record import StepRecord
from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.decisions import Admit, Policy, Reject, StepPlan, StepResult, StepWork
from setpoint.policy.modes import build_policy
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import BATCH, INTERACTIVE, RequestLimits, RequestView, StepView, SystemView

BLOCK_TOKENS = 4
MODEL_LEN = 40


def step_seconds(work: StepWork) -> float:
    """A machine: 2 ms a step and 0.1 ms a token."""
    return 2e-3 + 1e-4 * work.tokens


class MemoryExecutor(SimulatedExecutor):
    """Keeps what every slot of every block holds, so that a wrong block table cannot go unnoticed.

    A slot holds (position, token). Each item writes its tokens through its block table and must then read its whole context
    back; no two items of a step may write one slot, and nobody may write a block that another request reads.
    """

    def __init__(self, clock: VirtualClock, *, blocks: int, block_tokens: int = BLOCK_TOKENS) -> None:
        super().__init__(clock, step_seconds, blocks=blocks, block_tokens=block_tokens)
        self.batch: Batch | None = None
        self._memory: dict[tuple[int, int], tuple[int, int]] = {}

    def submit(self, batch: Batch) -> Batch:
        written = Counter(slot for item in batch.items for slot in self._slots(item, item.start, item.start + item.count))
        assert all(count == 1 for count in written.values()), "two items of a step write the same slot"
        blocks = {block for block, _ in written}
        owners = Counter(block for item in batch.items for block in set(item.sequence.blocks))
        assert all(owners[block] == 1 for block in blocks), "a block is written while another request reads it"
        assert len({item.sequence.sequence_id for item in batch.items}) == len(batch.items), "a request is in a step twice"
        self.batch = batch
        return batch

    def collect(self, ticket: Batch) -> StepOutput:
        for item in ticket.items:
            span = range(item.start, item.start + item.count)
            for slot, position in zip(self._slots(item, span.start, span.stop), span, strict=True):
                self._memory[slot] = (position, item.tokens[position - item.start])
        for item in ticket.items:
            end = item.start + item.count
            context = [self._memory.get(slot) for slot in self._slots(item, 0, end)]
            text = [*item.sequence.tokens[: item.start], *item.tokens]
            assert context == list(enumerate(text)), "the blocks do not hold the request's context"
        return super().collect(ticket)

    def _slots(self, item: BatchItem, start: int, end: int) -> list[tuple[int, int]]:
        size = self.block_tokens
        return [(item.sequence.blocks[position // size], position % size) for position in range(start, end)]


class WatchedPolicy:
    """Passes everything on and keeps the last plan."""

    def __init__(self, inner: Policy) -> None:
        self.inner = inner
        self.last: StepPlan | None = None
        self.view: StepView | None = None
        self.results: list[StepResult] = []

    def admit(self, request: RequestView, system: SystemView) -> Admit | Reject:
        return self.inner.admit(request, system)

    def plan(self, step: StepView) -> StepPlan:
        self.view = step
        self.last = self.inner.plan(step)
        return self.last

    def observe(self, result: StepResult) -> None:
        self.results.append(result)
        self.inner.observe(result)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request, when it comes, and whether it is cancelled: once it has so many tokens, inside a step or between two."""

    at_s: float
    request: GenerationRequest
    cancel_after: int | None = None
    cancel_in_step: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """Everything that decides a run."""

    config: ServingConfig
    blocks: int
    arrivals: tuple[Arrival, ...]
    stop_ids: frozenset[int] = frozenset()


@dataclass(slots=True)
class Life:
    """What became of one request."""

    arrival: Arrival
    sequence: Sequence | None = None
    tokens: list[int] = field(default_factory=list)
    ends: list[FinishReason] = field(default_factory=list)
    rejected: Rejected | None = None
    cancelled: bool = False


@dataclass(slots=True)
class Run:
    """A finished run."""

    loop: StepLoop
    policy: WatchedPolicy
    lives: list[Life]
    records: list[StepRecord]
    most_running: int = 0


def alone(request: GenerationRequest, length: int, stop_ids: frozenset[int]) -> tuple[list[int], FinishReason]:
    """What a request must give whatever happens around it: ``counting_tokens`` applied to its own text only."""
    sequence = Sequence(
        0, request, arrived_s=0.0, max_tokens=min(request.sampling.max_tokens, length - len(request.prompt_ids))
    )
    while sequence.emitted < sequence.max_tokens:
        token = counting_tokens(sequence)
        sequence.emit(token, 0.0)
        if token in stop_ids and not request.sampling.ignore_eos:
            return sequence.tokens[sequence.prompt_tokens :], FinishReason.STOP
    return sequence.tokens[sequence.prompt_tokens :], FinishReason.LENGTH


class Driver:
    """Runs a world to its end, checking after every step what must hold in every world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = VirtualClock()
        self.executor = MemoryExecutor(self.clock, blocks=world.blocks)
        model = StepTimeModel((2e-3, 1e-4, 0.0, 0.0, 0.0))
        self.policy = WatchedPolicy(build_policy(world.config, model))
        foretells = world.config.max_draft_tokens == 2
        self.drafter = PartlyRight(counting_tokens, world.config.longest_draft_tokens, foretells=foretells)
        speculator = build_speculator(world.config, self.clock, draft_model=lambda: self.drafter)
        self.loop = StepLoop(
            self.policy,
            self.executor,
            self.clock,
            max_model_len=MODEL_LEN,
            stop_token_ids=world.stop_ids,
            model=model,
            speculator=speculator,
        )
        self.lives = [Life(arrival) for arrival in sorted(world.arrivals, key=lambda each: each.at_s)]
        self.coming = deque(self.lives)
        self.by_id: dict[int, Life] = {}
        self.most_running = 0

    def run(self) -> Run:
        tokens = sum(len(a.request.prompt_ids) + a.request.sampling.max_tokens for a in self.world.arrivals)
        for _ in range(200 + 50 * tokens):
            if not (self.coming or self.loop.busy):
                return self._finished()
            self._one_step()
        raise AssertionError("the loop does not come to an end")

    def _one_step(self) -> None:
        self._arrive()
        self._cancel(in_step=False)
        started = self.loop.begin_step()
        self.loop.check_integrity()
        self._hear(self.loop.take_notices())
        if not started:
            self._sleep()
            return
        self._check_batch()
        self._cancel(in_step=True)
        self._arrive()
        self._hear(self.loop.finish_step())
        self._hear(self.loop.take_notices())
        self.loop.check_integrity()

    def _arrive(self) -> None:
        while self.coming and self.coming[0].arrival.at_s <= self.clock():
            life = self.coming.popleft()
            try:
                life.sequence = self.loop.submit(life.arrival.request)
            except Rejected as refusal:
                life.rejected = refusal
            else:
                self.by_id[life.sequence.sequence_id] = life

    def _cancel(self, *, in_step: bool) -> None:
        for life in self.by_id.values():
            wanted = life.arrival.cancel_after
            if wanted is None or life.sequence is None or life.ends or life.arrival.cancel_in_step != in_step:
                continue
            if len(life.tokens) >= wanted:
                life.cancelled = True
                self.loop.end(life.sequence, FinishReason.CANCELLED)

    def _sleep(self) -> None:
        moments = [life.arrival.at_s for life in list(self.coming)[:1]]
        if self.loop.wake_at_s is not None:
            assert self.loop.wake_at_s > self.clock(), "asked to be woken in the past"
            moments.append(self.loop.wake_at_s)
        assert moments or not self.loop.busy, "requests are there, no step starts, and nobody will ever ask again"
        if moments:
            self.clock.advance_to(min(moments))

    def _check_batch(self) -> None:
        plan, view, batch = self.policy.last, self.policy.view, self.executor.batch
        assert plan is not None
        assert view is not None
        assert batch is not None
        in_order = set(plan.order)
        prefill = sum(item.count for item in batch.items if item.sequence.sequence_id in in_order)
        assert prefill <= plan.prefill_budget_tokens
        assert batch.prefill_tokens <= plan.prefill_budget_tokens
        assert len(self.loop.running) <= min(plan.max_running, self.world.config.max_running)
        assert list(view.waiting.arrived_s) == sorted(view.waiting.arrived_s)
        assert list(view.running.ids) == sorted(view.running.ids), "columns come in arrival order"
        assert list(view.waiting.ids) == sorted(view.waiting.ids), "columns come in arrival order"
        self.most_running = max(self.most_running, len(self.loop.running))

    def _hear(self, emissions: list[Emission]) -> None:
        for emission in emissions:
            life = self.by_id[emission.sequence.sequence_id]
            assert not life.ends, "a request gained something after its end"
            if emission.token is not None:
                life.tokens.append(emission.token)
            if emission.finish_reason is not None:
                life.ends.append(emission.finish_reason)

    def _finished(self) -> Run:
        loop = self.loop
        assert loop.pool.used == 0, "blocks are left in use"
        loop.pool.check_integrity([])
        if loop.speculator is not None:
            assert self.drafter.forgotten >= self.by_id.keys(), "a drafter keeps what nobody needs any more"
        return Run(loop, self.policy, self.lives, list(loop.steps._steps), self.most_running)


prompts = st.one_of(
    st.just(1),
    st.sampled_from([BLOCK_TOKENS, 2 * BLOCK_TOKENS, 3 * BLOCK_TOKENS, MODEL_LEN - 1]),
    st.integers(1, 24),
)


drafting = st.fixed_dictionaries(
    {
        "speculation": st.just(SpeculationMode.DRAFT),
        "draft_tokens": st.sampled_from([1, 3, 9, 9, None]),
        "max_draft_tokens": st.sampled_from([2, 7]),
    }
)


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    """Prompts of 1 token, of exact blocks and of any length; families share prefixes; limits of every kind."""
    length = draw(prompts)
    family = draw(st.integers(0, 2))
    shared = draw(st.integers(0, length))
    own = draw(st.integers(0, 10_000))
    prompt = tuple(1000 * family + i for i in range(shared)) + tuple(20_000 + own + i for i in range(length - shared))
    limit = st.one_of(st.none(), st.sampled_from([1e-3, 4e-3, 2e-2, 1.0]))
    return GenerationRequest(
        prompt,
        SamplingParams(max_tokens=draw(st.one_of(st.just(1), st.integers(1, 20))), ignore_eos=draw(st.booleans())),
        streaming=draw(st.booleans()),
        limits=RequestLimits(draw(limit), draw(limit), draw(limit), draw(limit)),
        request_class=draw(st.sampled_from([INTERACTIVE, INTERACTIVE, BATCH])),
    )


@st.composite
def arrivals(draw: st.DrawFn) -> Arrival:
    """Mostly crowded in time; one in three is cancelled somewhere."""
    return Arrival(
        draw(st.sampled_from([0.0, 0.0, 1e-3, 5e-3, 2e-2, 0.3])),
        draw(requests()),
        cancel_after=draw(st.one_of(st.none(), st.none(), st.integers(0, 5))),
        cancel_in_step=draw(st.booleans()),
    )


@st.composite
def worlds(draw: st.DrawFn, mode: BatchingMode, *, speculating: bool = False) -> World:
    """Any configuration; caches from one that holds a single longest request to one that holds everything."""
    config = ServingConfig(
        mode=mode,
        max_running=draw(st.integers(1, 6)),
        token_budget=draw(st.sampled_from([1, 3, 4, 8, 64])),
        batch_wait_s=draw(st.sampled_from([0.0, 0.01, 0.2])),
        max_waiting=draw(st.sampled_from([0, 2, 1024])),
        prefill_floor_tokens=draw(st.sampled_from([1, 4, 16])),
        **(draw(drafting) if speculating else {}),
    )
    least = MODEL_LEN // BLOCK_TOKENS
    blocks = draw(st.one_of(st.integers(least, least + 6), st.just(4), st.just(100)))
    stop_ids = draw(st.sampled_from([frozenset[int](), frozenset(range(10, 50_010, 9))]))
    chosen = draw(st.lists(arrivals(), min_size=1, max_size=10))
    capacity = min(MODEL_LEN, blocks * BLOCK_TOKENS)
    fitting = tuple(a for a in chosen if len(a.request.prompt_ids) < capacity)
    return World(config, blocks, fitting, stop_ids)


@st.composite
def crowded_worlds(draw: st.DrawFn, mode: BatchingMode, *, speculating: bool = False) -> World:
    """Long answers in a cache that cannot hold them all: preemption is the rule. A third is cancelled, some have deadlines."""
    config = ServingConfig(
        mode=mode,
        max_running=draw(st.integers(3, 6)),
        token_budget=draw(st.sampled_from([6, 64])),
        batch_wait_s=0,
        **(draw(drafting) if speculating else {}),
    )
    due = st.sampled_from([None, None, None, 3e-3, 0.05])
    crowd = [
        Arrival(
            draw(st.sampled_from([0.0, 0.0, 4e-3])),
            GenerationRequest(
                tuple(range(1000 * (number % 3), 1000 * (number % 3) + draw(st.integers(1, 12)))),
                SamplingParams(max_tokens=draw(st.integers(10, 28))),
                limits=RequestLimits(itl_s=draw(due), tpot_s=draw(due), e2e_s=draw(st.sampled_from([None, None, 0.2]))),
                streaming=draw(st.booleans()),
            ),
            cancel_after=draw(st.one_of(st.none(), st.none(), st.integers(1, 9))),
            cancel_in_step=draw(st.booleans()),
        )
        for number in range(draw(st.integers(4, 8)))
    ]
    return World(config, draw(st.integers(10, 13)), tuple(crowd))
