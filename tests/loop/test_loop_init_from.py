"""``setpoint init --from-trace``: what it writes loads, describes the trace, and says what was seen and what is a guess."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.loop.errors import BadInput
from setpoint.loop.init_from import profile_of_trace, requirement_from_trace, requirement_of_trace, reuse
from setpoint.requirement import (
    Arrival,
    ArrivalProcess,
    ChoiceTokens,
    ConstantTokens,
    LatencyMetric,
    LognormalTokens,
    Requirement,
    UniformTokens,
    parse_requirement,
)
from setpoint.workload import draw_tokens, offsets_of
from setpoint.workload.traces import Trace
from setpoint.workload.traces.trace import Blocks, Turn


def trace_of(arrival: Arrival, duration_s: float = 600.0, seed: int = 1) -> Trace:
    rng = np.random.default_rng(seed)
    times_s = offsets_of(arrival, duration_s, rng)
    return Trace(
        name="some/day of traffic.csv",
        format="azure",
        times_s=times_s - times_s[0],
        prompt_tokens=draw_tokens(LognormalTokens(median=400, p95=2000, min=5, max=8000), times_s.size, rng),
        output_tokens=draw_tokens(UniformTokens(min=20, max=30), times_s.size, rng),
        notes=("A note of the reader.",),
    )


def written(trace: Trace, **options: str) -> tuple[str, Requirement]:
    text = requirement_of_trace(trace, **options)  # type: ignore[arg-type]
    return text, parse_requirement(text, "new.yaml")


def test_lengths_rate_and_variation_are_those_of_the_trace() -> None:
    text, requirement = written(trace_of(Arrival(process=ArrivalProcess.GAMMA, rate_rps=5.0, cv=2.0)))
    profile = requirement.profile
    assert requirement.name == "day of traffic"
    assert isinstance(profile.prompt_tokens, LognormalTokens)
    assert profile.prompt_tokens.median == pytest.approx(400, rel=0.1)
    assert isinstance(profile.output_tokens, ChoiceTokens)
    assert (profile.output_tokens.smallest, profile.output_tokens.largest) == (20, 30)
    assert profile.arrival.process is ArrivalProcess.GAMMA
    assert profile.arrival.rate_rps == pytest.approx(5.0, rel=0.1)
    assert profile.arrival.cv == pytest.approx(2.0, rel=0.2)
    assert requirement.slo.limit_s(LatencyMetric.TTFT) == 0.5
    for words in (
        "# Written from day of traffic.csv (azure, ",
        "# A note of the reader.",
        "# Seen: prompts of ",
        "No log-normal fits",
        "coefficient of variation of",
        "# The limits are a guess",
    ):
        assert words in " ".join(text.split())


def test_a_burst_is_written_where_there_was_one() -> None:
    calm = Arrival(rate_rps=4.0)
    assert written(trace_of(calm))[1].profile.burst is None
    busy = Arrival(process=ArrivalProcess.ON_OFF, rate_rps=40.0, on_s=15.0, off_s=285.0, off_rate_rps=2.0)
    text, requirement = written(trace_of(busy))
    assert requirement.profile.burst is not None
    assert requirement.profile.burst.rate_rps == pytest.approx(40, rel=0.25)
    assert "more than chance explains" in text


def test_evenly_spaced_requests_are_constant() -> None:
    trace = Trace("t", "burstgpt", np.full(50, 9), np.full(50, 1), (2 * np.arange(50)).astype(np.float64))
    requirement = written(trace)[1]
    assert requirement.profile.arrival == Arrival(process=ArrivalProcess.CONSTANT, rate_rps=0.5)
    assert requirement.profile.prompt_tokens == ConstantTokens(value=9)
    assert requirement.slo.limit_s(LatencyMetric.ITL) is None


def test_a_short_trace_says_nothing_of_bursts() -> None:
    text, requirement = written(trace_of(Arrival(rate_rps=40.0), duration_s=5.0))
    assert requirement.profile.burst is None
    assert "too short to tell whether there are bursts" in " ".join(text.replace("#", " ").split())


def blocks(lists: list[list[int]], size: int = 512) -> Blocks:
    starts = np.concatenate([[0], np.cumsum([len(one) for one in lists])])
    return Blocks(np.array([number for one in lists for number in one], dtype=np.int64), starts, size)


def test_reuse_counts_what_came_before() -> None:
    found = reuse(blocks([[0, 1, 2], [0, 1, 3], [0, 9, 2], [0, 1, 2]]), np.array([1500, 1536, 1536, 1100]))
    # The last block of the first prompt has 476 tokens; of the third only the first block is behind equal blocks.
    assert found == pytest.approx((1024 + 512 + 1100) / (1500 + 1536 + 1536 + 1100))


def test_sharing_becomes_a_hit_rate() -> None:
    lists = [[0, 1, number + 10] for number in range(40)]
    trace = Trace("m", "mooncake", np.full(40, 1536), np.full(40, 5), np.arange(40.0), blocks(lists))
    text, requirement = written(trace)
    assert requirement.profile.prefix_hit_rate == pytest.approx(39 / 40 * 2 / 3, abs=0.001)
    assert "of the prompt tokens are in blocks that came before" in " ".join(text.split())
    assert profile_of_trace(trace).prefix_hit_rate == pytest.approx(39 / 40 * 2 / 3)


def test_conversations_become_sessions_and_a_guessed_rate() -> None:
    talks = [[Turn("a" * 40, "b" * 80)] * (1 + number % 3) for number in range(30)]
    trace = Trace("s", "sharegpt", np.full(30, 10), np.full(30, 20), conversations=talks, exact=False)
    text, requirement = written(trace, rate="3/s")
    assert requirement.profile.sessions is not None
    assert requirement.profile.sessions.turns == ChoiceTokens(values=(1, 2, 3), weights=(0.3333, 0.3333, 0.3333))
    assert requirement.profile.arrival.rate_rps == 3.0
    assert "10s is a guess" in " ".join(text.split())
    assert "1/s, a guess" in written(trace)[0]
    assert profile_of_trace(trace, rate_rps=2.5).arrival == Arrival(rate_rps=2.5)


def test_a_profile_tells_what_is_replayed() -> None:
    trace = trace_of(Arrival(rate_rps=5.0))
    profile = profile_of_trace(trace, speed_up=3.0, streaming=False)
    assert profile.arrival.mean_rps == pytest.approx(15.0, rel=0.1)
    assert not profile.streaming


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)), min_size=1, max_size=40),
    gaps=st.lists(st.one_of(st.just(0.0), st.floats(1e-4, 1e4)), min_size=40, max_size=40),
)
def test_whatever_was_seen_is_a_requirement(counts: list[tuple[int, int]], gaps: list[float]) -> None:
    prompts, outputs = (np.array(column) for column in zip(*counts, strict=True))
    times_s = np.concatenate([[0.0], np.cumsum(gaps)])[: len(counts)]
    requirement = written(Trace("any", "azure", prompts, outputs, times_s))[1]
    assert requirement.profile.prompt_tokens.largest <= prompts.max()


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no such file"):
        requirement_from_trace(tmp_path / "none")
    path = tmp_path / "talk.json"
    path.write_text(json.dumps([{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}]))
    assert parse_requirement(requirement_from_trace(path), "new").name == "talk"
    with pytest.raises(BadInput, match=r"found \"fast\""):
        requirement_from_trace(path, rate="fast")


def test_a_rate_beside_a_trace_that_shows_it_is_a_mistake() -> None:
    with pytest.raises(BadInput, match="--rate: the trace has times"):
        written(trace_of(Arrival(rate_rps=5.0)), rate="3/s")
