"""The step loop by example: what it refuses, how requests end, what it reports."""

from __future__ import annotations

import pytest
from engine_world import MODEL_LEN, MemoryExecutor, WatchedPolicy, alone, step_seconds

from setpoint.engine.batch import Batch, StepOutput
from setpoint.engine.emission import Emission
from setpoint.engine.request import EngineFailed, FinishReason, GenerationRequest, InvalidRequest, Rejected, SamplingParams
from setpoint.engine.simulated import SimulatedExecutor, VirtualClock
from setpoint.engine.step_loop import StepLoop
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import StepWork
from setpoint.policy.modes import build_policy
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import RequestLimits


def request(prompt: int, tokens: int = 3, *, first: int = 0, limits: RequestLimits | None = None) -> GenerationRequest:
    return GenerationRequest(
        tuple(range(first, first + prompt)), SamplingParams(max_tokens=tokens), limits=limits or RequestLimits()
    )


class Engine:
    """A loop on a virtual clock with everything within reach."""

    def __init__(self, mode: BatchingMode = BatchingMode.CONTINUOUS, *, blocks: int = 40, **fields: float) -> None:
        self.clock = VirtualClock()
        self.model = StepTimeModel((2e-3, 1e-4, 0.0, 0.0, 0.0))
        config = ServingConfig.model_validate({"mode": mode, **fields})
        self.policy = WatchedPolicy(build_policy(config, self.model))
        self.executor: SimulatedExecutor = MemoryExecutor(self.clock, blocks=blocks)
        self.loop = StepLoop(self.policy, self.executor, self.clock, max_model_len=MODEL_LEN, model=self.model)

    def step(self) -> list[Emission]:
        assert self.loop.begin_step()
        emissions = self.loop.finish_step()
        self.loop.check_integrity()
        return emissions

    def drain(self) -> list[Emission]:
        emissions = []
        while self.loop.busy:
            emissions += self.step()
        return emissions


@pytest.mark.parametrize(
    ("asked", "field", "words"),
    [
        (request(0), "prompt", "the prompt is empty"),
        (request(MODEL_LEN), "prompt", "shorten it by at least 1"),
        (request(MODEL_LEN + 9), "prompt", "shorten it by at least 10"),
        (request(4, tokens=0), "max_tokens", "at least 1 is needed"),
    ],
)
def test_what_can_never_be_served_is_refused(asked: GenerationRequest, field: str, words: str) -> None:
    engine = Engine()
    with pytest.raises(InvalidRequest, match=words) as caught:
        engine.loop.submit(asked)
    assert caught.value.field_name == field
    assert not engine.loop.busy


def test_the_cache_bounds_the_context_length() -> None:
    engine = Engine(blocks=3)
    assert engine.loop.max_model_len == 12
    sequence = engine.loop.submit(request(11, tokens=99))
    assert sequence.max_tokens == 1
    assert [emission.finish_reason for emission in engine.drain()] == [FinishReason.LENGTH]


def test_a_refusal_carries_the_policys_words_and_counts() -> None:
    engine = Engine(max_waiting=1)
    engine.loop.submit(request(4))
    with pytest.raises(Rejected, match="queue_full") as caught:
        engine.loop.submit(request(4))
    assert caught.value.retry_after_s > 0
    assert engine.loop.counters.rejected == 1
    assert len(engine.drain()) == 3


def test_a_request_runs_as_it_would_alone_and_its_times_are_those_of_its_steps() -> None:
    engine = Engine(token_budget=4)
    engine.clock.advance_to(5.0)
    sequence = engine.loop.submit(request(6))
    assert (sequence.arrived_s, sequence.sent_s) == (5.0, 5.0)
    assert engine.step() == [], "four of six tokens"
    assert sequence.first_token_s is None
    emissions = engine.drain()
    tokens, reason = alone(request(6), MODEL_LEN, frozenset())
    assert [emission.token for emission in emissions] == tokens
    assert emissions[-1].finish_reason == reason
    assert sequence.first_scheduled_s == 5.0
    assert sequence.first_token_s == pytest.approx(
        5.0 + step_seconds(StepWork(4, 1, 0, 0)) + step_seconds(StepWork(2, 1, 0, 0))
    )
    assert sequence.last_token_s == engine.clock()


def test_a_waiting_request_ends_at_once_and_a_running_one_after_its_step() -> None:
    engine = Engine(max_running=1)
    running, waiting = engine.loop.submit(request(4, 9)), engine.loop.submit(request(4, 9, first=50))
    engine.step()
    assert engine.loop.begin_step()
    engine.loop.end(waiting, FinishReason.CANCELLED)
    engine.loop.end(running, FinishReason.STOP)
    assert [(e.sequence, e.finish_reason) for e in engine.loop.take_notices()] == [(waiting, FinishReason.CANCELLED)]
    assert [(e.sequence, e.token, e.finish_reason) for e in engine.loop.finish_step()] == [(running, None, FinishReason.STOP)]
    assert engine.loop.take_notices() == []
    assert engine.loop.pool.used == 0
    assert not engine.loop.busy
    engine.loop.end(running, FinishReason.CANCELLED)
    assert running.finish_reason is FinishReason.STOP, "an end is final"


def test_a_token_that_came_after_the_end_is_not_output() -> None:
    """Seen: it was counted though nobody got it."""
    engine = Engine()
    sequence = engine.loop.submit(request(4, 9))
    engine.step()
    assert engine.loop.begin_step()
    engine.loop.end(sequence, FinishReason.CANCELLED)
    engine.loop.finish_step()
    assert (sequence.emitted, engine.loop.counters.output_tokens) == (1, 1)
    assert engine.policy.results[-1].new_tokens == {}
    assert engine.policy.results[-1].finished == (sequence.sequence_id,)


def test_one_cancelled_inside_a_prefill_step_ends_with_a_notice() -> None:
    engine = Engine(token_budget=4)
    sequence = engine.loop.submit(request(20))
    assert engine.loop.begin_step()
    engine.loop.end(sequence, FinishReason.CANCELLED)
    assert engine.loop.finish_step() == []
    assert [e.finish_reason for e in engine.loop.take_notices()] == [FinishReason.CANCELLED]
    assert engine.loop.pool.used == 0


def test_a_stop_token_ends_the_answer_unless_it_is_to_be_ignored() -> None:
    tokens, _ = alone(request(4, 9), MODEL_LEN, frozenset())
    for ignore_eos, expected in ((False, tokens[:3]), (True, tokens)):
        engine = Engine()
        engine.loop = StepLoop(
            engine.policy, engine.executor, engine.clock, max_model_len=MODEL_LEN, stop_token_ids=frozenset({tokens[2]})
        )
        engine.loop.submit(GenerationRequest(tuple(range(4)), SamplingParams(max_tokens=9, ignore_eos=ignore_eos)))
        emissions = engine.drain()
        assert [emission.token for emission in emissions] == expected
        assert emissions[-1].finish_reason is (FinishReason.LENGTH if ignore_eos else FinishReason.STOP)


def test_a_doomed_request_is_shed_with_words_and_a_time_to_come_back() -> None:
    engine = Engine(BatchingMode.SETPOINT)
    engine.loop.submit(request(4, 20))
    assert engine.loop.begin_step()
    doomed = engine.loop.submit(request(4, first=100, limits=RequestLimits(ttft_s=6e-3)))
    engine.clock.advance_to(engine.clock() + 5e-3)
    engine.loop.finish_step()
    assert engine.loop.begin_step()
    notice, *others = engine.loop.take_notices()
    assert not others
    assert notice.sequence is doomed
    assert notice.finish_reason is FinishReason.SHED
    assert notice.retry_after_s is not None
    assert notice.retry_after_s > 0
    assert "could no longer make its deadline" in notice.message
    assert engine.loop.counters.shed == 1


def test_a_cached_prefix_counts_when_a_deadline_is_judged() -> None:
    """Seen: the whole prompt was counted, and a request that only had its last tokens to compute was shed as doomed."""
    engine = Engine(BatchingMode.SETPOINT)
    engine.loop.submit(request(30, 1))
    engine.drain()
    engine.loop.submit(request(31, 1, limits=RequestLimits(ttft_s=3e-3)))
    assert [emission.finish_reason for emission in engine.drain()] == [FinishReason.LENGTH]
    assert engine.policy.view is not None
    assert engine.policy.view.waiting.prefill_tokens.tolist() == [3]
    assert engine.loop.counters.prefix_hits == 28
    assert engine.loop.counters.prefix_queries == 61


@pytest.mark.parametrize("mode", [BatchingMode.STATIC, BatchingMode.CONTINUOUS, BatchingMode.SETPOINT])
def test_a_full_cache_preempts_and_everybody_still_ends(mode: BatchingMode) -> None:
    engine = Engine(mode, blocks=9, batch_wait_s=0, max_running=4)
    asked = [request(8, 16, first=100 * number) for number in range(4)]
    sequences = [engine.loop.submit(each) for each in asked]
    engine.drain()
    assert engine.loop.counters.preemptions > 0
    assert sum(sequence.preemptions for sequence in sequences) == engine.loop.counters.preemptions
    for sequence, each in zip(sequences, asked, strict=True):
        assert sequence.tokens[8:] == alone(each, 36, frozenset())[0]


def test_static_sleeps_until_its_wait_is_over() -> None:
    engine = Engine(BatchingMode.STATIC, batch_wait_s=0.5, max_running=4)
    engine.loop.submit(request(4))
    assert not engine.loop.begin_step()
    assert engine.loop.wake_at_s == 0.5
    engine.clock.advance_to(0.5)
    assert engine.loop.begin_step()
    assert engine.loop.wake_at_s is None


def test_an_idle_loop_has_nothing_to_do() -> None:
    engine = Engine()
    assert not engine.loop.begin_step()
    assert engine.policy.last is None
    assert engine.loop.take_notices() == []


class Failing(SimulatedExecutor):
    def collect(self, ticket: Batch) -> StepOutput:
        raise EngineFailed("the kernels are gone")


def test_after_a_failure_everything_ends_with_an_error_and_no_block_is_left() -> None:
    clock = VirtualClock()
    executor = Failing(clock, step_seconds, blocks=20, block_tokens=4)
    loop = StepLoop(build_policy(ServingConfig(max_running=1)), executor, clock, max_model_len=MODEL_LEN)
    sequences = [loop.submit(request(4)), loop.submit(request(9, first=30))]
    assert loop.begin_step()
    loop.end(sequences[0], FinishReason.CANCELLED)
    with pytest.raises(EngineFailed):
        loop.finish_step()
    lost = loop.abort_all("the engine failed")
    assert [(e.sequence, e.finish_reason, e.message) for e in lost] == [
        (sequence, FinishReason.ERROR, "the engine failed") for sequence in sequences
    ]
    assert loop.pool.used == 0
    assert not loop.busy
    assert not loop.begin_step()


def test_every_step_is_recorded_with_its_reason_and_its_prediction() -> None:
    engine = Engine(token_budget=8)
    engine.loop.submit(request(12, 2))
    engine.drain()
    table, following = engine.loop.steps.columns(0)
    assert following == 3
    assert table["prefill_tokens"] == [8, 4, 0]
    assert table["decode_tokens"] == [0, 0, 1]
    assert table["running"] == [1, 1, 1]
    assert table["kv_used_blocks"] == [3, 3, 4]
    assert table["predicted_s"] == pytest.approx([2.8e-3, 2.4e-3, 2.1e-3])
    assert [str(reason).split()[0] for reason in table["reason"]] == ["fixed_budget"] * 3
