"""Several tokens of a step on their way to the reader: each is told, those behind a stop string or the cap are not."""

from __future__ import annotations

import time
from typing import cast

from engine_stepped import MODEL_LEN, ByteTable, all_of, in_event_loop, text_of

from setpoint.engine.request import Delta, FinishReason, GenerationRequest, RequestStats, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.service import SpeculationTotals
from setpoint.engine.simulated import SimulatedExecutor, VirtualClock
from setpoint.engine.speculation.simulated import PartlyRight
from setpoint.engine.speculation.speculator import Speculator
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.threaded import ThreadedEngine
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.modes import build_policy

LONGEST = 6


def letter(sequence: Sequence) -> int:
    return ord("a") + sequence.emitted % 26


def engine_of_letters() -> ThreadedEngine:
    """Answers the alphabet, six guesses at a time, most of which are right."""
    config = ServingConfig(mode=BatchingMode.CONTINUOUS, speculation=SpeculationMode.DRAFT, draft_tokens=LONGEST)

    def build() -> tuple[StepLoop, SimulatedExecutor]:
        executor = SimulatedExecutor(VirtualClock(), lambda work: 1e-3, blocks=64, block_tokens=4, next_token=letter)
        drafter = PartlyRight(letter, LONGEST)
        speculator = Speculator(drafter, time.monotonic, most_tokens=LONGEST, most_running=8)
        loop = StepLoop(build_policy(config), executor, time.monotonic, max_model_len=MODEL_LEN, speculator=speculator)
        return loop, executor

    table = cast(ModelTokenizer, ByteTable())
    return ThreadedEngine(model_name="letters", tokenizer=table, build=build, max_model_len=10**6)


async def answered(**sampling: object) -> tuple[list[Delta], RequestStats, SpeculationTotals]:
    engine = engine_of_letters()
    await engine.start()
    try:
        asked = SamplingParams(temperature=0.0, **sampling)  # type: ignore[arg-type]
        deltas = await all_of(await engine.submit(GenerationRequest(tuple(b"hello"), asked)))
        totals = engine.gauges().speculation
        assert totals is not None
        return deltas, engine.ended_requests(0)[0][0], totals
    finally:
        await engine.stop()


@in_event_loop
async def test_every_token_has_a_delta_of_its_own() -> None:
    deltas, stats, totals = await answered(max_tokens=50)
    assert text_of(deltas) == "".join(chr(ord("a") + i % 26) for i in range(50))
    assert [len(delta.token_ids) for delta in deltas] == [1] * 50
    assert stats.output_tokens == 50
    assert totals.draft_tokens > totals.accepted_tokens > 10
    assert sum(totals.accepted_per_position) == totals.accepted_tokens
    assert totals.guesses.tried[0] == totals.drafts, "this drafter foretells nothing"
    assert sum(totals.guesses.stood) == totals.accepted_tokens
    assert 0 < totals.guesses.found <= totals.guesses.looked


@in_event_loop
async def test_tokens_behind_a_stop_string_are_nobodys() -> None:
    for last in "cdefghijkl":
        deltas, stats, _ = await answered(max_tokens=50, stop=(last,))
        wanted = ord(last) - ord("a")
        assert text_of(deltas) == "".join(chr(ord("a") + i) for i in range(wanted))
        assert deltas[-1].finish_reason is FinishReason.STOP
        assert stats.output_tokens == wanted + 1


@in_event_loop
async def test_the_cap_is_kept_whatever_is_guessed() -> None:
    for cap in range(1, 10):
        deltas, stats, _ = await answered(max_tokens=cap)
        assert len(deltas) == stats.output_tokens == cap
        assert deltas[-1].finish_reason is FinishReason.LENGTH
