"""Plans by number of requests, closed and replayed; goals and what is seen of them during a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from setpoint.loop.asked import asked_of
from setpoint.loop.errors import BadInput
from setpoint.loop.flags import ClientFlags, LengthFlags, LoadFlags, OutputFlags, TargetFlags, TraceFlags, VerdictFlags
from setpoint.loop.goal import parse_goal
from setpoint.loop.goal_watch import watch
from setpoint.loop.measure import MeasureOptions
from setpoint.loop.planning import plan_for
from setpoint.measure.outcome import RequestOutcome
from setpoint.record import Phase, RequestClass
from setpoint.requirement import LatencyMetric, Requirement
from setpoint.workload.plan import LoadPlan
from setpoint.workload.prompts import EstimatedPrompts

TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:{at // 60:02d}:{at % 60:02d}.0000000,{20 + at % 7},{5 + at % 3}\n" for at in range(120)
)


def asked(
    *, load: LoadFlags | None = None, length: LengthFlags | None = None, trace: TraceFlags | None = None
) -> tuple[Requirement, MeasureOptions]:
    """What the options come to."""
    found = asked_of(
        None,
        TargetFlags(),
        load or LoadFlags(),
        trace or TraceFlags(),
        length or LengthFlags(),
        ClientFlags(),
        VerdictFlags(),
        OutputFlags(),
    )
    return found.requirement, found.options


def planned(**flags: object) -> LoadPlan:
    requirement, options = asked(**flags)  # type: ignore[arg-type]
    return plan_for(requirement, options, EstimatedPrompts())


@settings(deadline=None, max_examples=30)
@example(requests=256, rate="0.5", arrival="gamma", seed=8)  # the last two arrive in the same instant
@given(
    requests=st.integers(1, 300),
    rate=st.sampled_from(["0.5", "7/s", "200/s"]),
    arrival=st.sampled_from([None, "constant", "gamma"]),
    seed=st.integers(0, 50),
)
def test_so_many_requests_are_exactly_so_many(requests: int, rate: str, arrival: str | None, seed: int) -> None:
    load = LoadFlags(rate=rate, arrival=arrival, cv=3.0 if arrival == "gamma" else None)
    plan = planned(load=load, length=LengthFlags(requests=requests, warmup="2s", seed=seed))
    assert plan.offered[Phase.SUSTAINED] == requests
    (span,) = (span for span in plan.phases if span.phase is Phase.SUSTAINED)
    last = max(request.intended_s for request in plan.requests)
    assert span.start_s == 2.0
    assert last < span.end_s


def test_the_first_requests_are_those_of_a_longer_run() -> None:
    short = planned(load=LoadFlags(rate="10"), length=LengthFlags(requests=20, warmup="0"))
    long = planned(load=LoadFlags(rate="10"), length=LengthFlags(duration="60s", warmup="0"))
    assert [request.intended_s for request in short.requests] == [each.intended_s for each in long.requests[:20]]


def test_a_closed_loop_by_number_and_by_time() -> None:
    number = planned(load=LoadFlags(concurrency=4), length=LengthFlags(requests=30))
    assert (number.concurrency, number.by_time, number.offered[Phase.SUSTAINED]) == (4, False, 30)
    length = planned(load=LoadFlags(concurrency=4), length=LengthFlags(duration="3s", warmup="1s"))
    assert [(span.phase, span.end_s) for span in length.phases] == [(Phase.WARMUP, 1.0), (Phase.SUSTAINED, 4.0)]


def test_arrivals_that_change_are_what_their_options_say() -> None:
    ramp, _ = asked(load=LoadFlags(rate="2", to_rate="10"))
    assert (ramp.profile.arrival.process, ramp.profile.arrival.mean_rps) == ("ramp", 6.0)
    step, _ = asked(load=LoadFlags(steps="1/s:10s,5/s:10s"))
    assert (step.profile.arrival.process, step.profile.arrival.mean_rps) == ("step", 3.0)
    on_off, _ = asked(load=LoadFlags(rate="4", on="5s", off="15s"))
    assert (on_off.profile.arrival.process, on_off.profile.arrival.mean_rps) == ("on_off", 1.0)


def test_a_trace_is_replayed_from_where_and_as_fast_as_asked(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(TRACE)
    trace = TraceFlags(trace=file, speed_up=4.0, trace_start="20s")
    requirement, options = asked(trace=trace, length=LengthFlags(warmup="5s"))
    plan = plan_for(requirement, options, EstimatedPrompts())
    assert len(plan.requests) == 100
    assert np.diff([request.intended_s for request in plan.requests]) == pytest.approx(0.25)
    assert {request.max_tokens for request in plan.requests} == {5, 6, 7}
    assert options.schedule.sustained_s == pytest.approx(20.0, abs=0.5)
    assert requirement.profile.arrival.mean_rps == pytest.approx(4.0, rel=0.02)
    assert requirement.name == "trace"
    shorter, options = asked(trace=trace, length=LengthFlags(warmup="0", duration="10s"))
    assert len(plan_for(shorter, options, EstimatedPrompts()).requests) == 40
    with pytest.raises(BadInput, match="nothing is left after --trace-start"):
        asked(trace=TraceFlags(trace=file, trace_start="119s"))


@pytest.mark.parametrize(
    ("text", "metric", "percent", "width"),
    [
        ("p99<10%", None, 99.0, 0.1),
        ("e2e_p95<=0.05", LatencyMetric.E2E, 95.0, 0.05),
        ("ITL_p99.9<20%", LatencyMetric.ITL, 99.9, 0.2),
    ],
)
def test_goals_are_read(text: str, metric: LatencyMetric | None, percent: float, width: float) -> None:
    goal = parse_goal(text)
    assert (goal.metric, goal.percentile, goal.relative_width) == (metric, percent, width)
    assert parse_goal(goal.words()) == goal


@pytest.mark.parametrize("text", ["", "p99", "p0<10%", "p100<10%", "p99<0%", "p99<500ms", "goodput<10%", "p99>10%"])
def test_goals_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"--until .*allowed: a percentile"):
        parse_goal(text)


def outcome(index: int, intended_s: float, ttft_s: float, class_: RequestClass = RequestClass.OK) -> RequestOutcome:
    times = np.array([intended_s + ttft_s]) if class_ is RequestClass.OK else np.empty(0)
    return RequestOutcome(
        index=index, request_id=str(index), phase=Phase.SUSTAINED, intended_s=intended_s, request_class=class_, streaming=True,
        prompt_tokens=1, token_times_s=times, completed=class_ is RequestClass.OK,
    )  # fmt: skip


def test_a_goal_is_reached_by_what_ended_with_the_rest_as_censored() -> None:
    plan = planned(load=LoadFlags(rate="100", arrival="constant"), length=LengthFlags(duration="60s", warmup="0"))
    seen = watch(parse_goal("p50<20%"), plan, streaming=True)
    assert seen.looks_s[0] == pytest.approx(10.0)
    assert max(seen.looks_s) < 60.0
    rng = np.random.default_rng(3)
    rows = [outcome(each.index, each.intended_s, float(rng.uniform(0.1, 0.11))) for each in plan.requests[:3000]]
    assert seen(rows, 30.0)
    assert not seen(rows[:5], 0.05)
    assert not seen([], 10.0)
    # Most of what came due has not ended, so nobody knows the median.
    assert not seen(rows[:900], 30.0)
