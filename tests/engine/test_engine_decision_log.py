"""Every request's decisions tell a whole story, whatever the load: asked once, every place and every loss of it, one end."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.engine.decision_log import FACTS, DecisionKind, DecisionLog
from setpoint.engine.request import FinishReason, GenerationRequest, Rejected, SamplingParams
from setpoint.engine.sequence import Sequence
from setpoint.engine.simulated import SimulatedExecutor, VirtualClock
from setpoint.engine.step_loop import StepLoop
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import Reason
from setpoint.policy.modes import build_policy
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import RequestLimits

MOST_STEPS = 2000


def story_of(loop: StepLoop) -> dict[str, list[dict[str, Any]]]:
    columns, following = loop.decisions.columns(0)
    assert columns["decision"] == list(range(following))
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["request_id"]].append(row)
    return found


def run(mode: BatchingMode, sizes: list[tuple[int, int]], *, blocks: int, cancel: int, ttft_s: float) -> StepLoop:
    """All requests at once, one of them cancelled in the third step; to the end."""
    clock = VirtualClock()
    model = StepTimeModel()
    config = ServingConfig(mode=mode, max_running=4, token_budget=64, max_waiting=len(sizes), batch_wait_s=0.0)
    executor = SimulatedExecutor(clock, lambda work: 0.01 + 1e-3 * work.tokens, blocks=blocks, block_tokens=4)
    loop = StepLoop(build_policy(config, model), executor, clock, max_model_len=blocks * 4, model=model)
    sequences: list[Sequence] = []
    for number, (prompt, output) in enumerate(sizes):
        tokens = tuple(range(1000 * number, 1000 * number + prompt))
        sampling = SamplingParams(max_tokens=output, ignore_eos=True)
        try:
            sequences.append(
                loop.submit(GenerationRequest(tokens, sampling, f"r{number}", limits=RequestLimits(ttft_s=ttft_s)))
            )
        except Rejected:
            continue
    for step in range(MOST_STEPS):
        if step == 3 and cancel < len(sequences):
            loop.end(sequences[cancel], FinishReason.CANCELLED)
        if loop.begin_step():
            loop.finish_step()
        loop.take_notices()
        loop.check_integrity()
        if not loop.busy:
            return loop
    raise AssertionError("not done")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(BatchingMode),
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=10),
    st.integers(10, 24),
    st.integers(0, 9),
    st.sampled_from([0.03, 0.2, 10.0]),
)
def test_every_request_has_a_whole_story(
    mode: BatchingMode, sizes: list[tuple[int, int]], blocks: int, cancel: int, ttft_s: float
) -> None:
    loop = run(mode, sizes, blocks=blocks, cancel=cancel, ttft_s=ttft_s)
    stories = story_of(loop)
    assert set(stories) == {f"r{number}" for number in range(len(sizes))}
    total: Counter[str] = Counter()
    for name, rows in stories.items():
        kinds = [row["kind"] for row in rows]
        count = Counter(kinds)
        total += count
        assert kinds[0] in ("admit", "reject")
        assert count["admit"] + count["reject"] == 1
        assert count["shed"] + count["end"] == (0 if count["reject"] else 1)
        # Places are taken and lost in turn, so that the story tells in which steps the request was.
        places = [kind for kind in kinds if kind in ("join", "preempt")]
        assert places == ["join", "preempt"] * (len(places) // 2) + ["join"] * (len(places) % 2)
        assert all(row["code"] and row["time_s"] >= 0 for row in rows)
        assert [row["step"] for row in rows if row["kind"] != "end"] == sorted(
            row["step"] for row in rows if row["kind"] != "end"
        )
        for row in rows:
            assert set(row["operands"]) >= set(FACTS[DecisionKind(row["kind"])]) - {"left_s", "first_token_after_s"}
            if row["kind"] == "preempt":
                assert row["other_id"] in stories
                assert row["operands"]["lost_tokens"] >= sizes[int(name[1:])][0]
    assert total["reject"] == loop.counters.rejected
    assert total["preempt"] == loop.counters.preemptions
    assert total["shed"] == loop.counters.shed


def test_the_ring_is_bounded_and_read_from_any_number() -> None:
    log = DecisionLog(most=4)
    assert log.columns(0)[1] == 0
    for number in range(10):
        sequence = Sequence(number, GenerationRequest((1,), name=f"r{number}"), arrived_s=float(number), max_tokens=1)
        log.asked(sequence, Reason("queue_has_room", {"x": float("inf")}), step=0, waiting=0, running=0)
    columns, following = log.columns(0)
    assert (columns["decision"], following, log.total) == ([6, 7, 8, 9], 10, 10)
    assert log.columns(8)[0]["request_id"] == ["r8", "r9"]
    assert log.columns(99)[0]["decision"] == []
    assert columns["operands"][0] == {
        "prompt_tokens": 1,
        "uncached_tokens": 1,
        "cap_tokens": 1,
        "request_class": 0,
        "tenant": 0,
        "waiting": 0,
        "running": 0,
    }


@pytest.mark.parametrize(("mode", "rule"), [(BatchingMode.CONTINUOUS, "newest"), (BatchingMode.SETPOINT, "least_computed")])
def test_a_preemption_says_for_whom_and_by_which_rule(mode: BatchingMode, rule: str) -> None:
    loop = run(mode, [(12, 30), (12, 30), (12, 30)], blocks=14, cancel=99, ttft_s=100.0)
    preempted = [row for rows in story_of(loop).values() for row in rows if row["kind"] == "preempt"]
    assert preempted
    assert {row["code"] for row in preempted} == {rule}
    assert all(row["other_id"] for row in preempted)


def test_a_refused_request_tells_its_forecast_and_a_dropped_one_what_was_left() -> None:
    # The prior takes steps to be three times as fast as they are: with more time, some are admitted that have to be dropped.
    rows = [
        row
        for ttft_s in (0.05, 0.1)
        for story in story_of(run(BatchingMode.SETPOINT, [(20, 5)] * 10, blocks=64, cancel=99, ttft_s=ttft_s)).values()
        for row in story
    ]
    refused = [row["operands"] for row in rows if row["kind"] == "reject"]
    dropped = [row for row in rows if row["kind"] == "shed"]
    assert refused
    assert dropped
    for operands in refused:
        assert operands["ttft_s"] + operands["ttft_margin_s"] > operands["ttft_limit_s"]
        assert operands["retry_after_s"] > 0
    for row in dropped:
        assert (row["code"] == "doomed_alone") == (row["operands"]["own_s"] > row["operands"]["left_s"])
        assert row["code"] in ("doomed_alone", "doomed_behind")
