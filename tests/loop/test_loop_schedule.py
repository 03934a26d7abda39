"""The sustained phase is as long as the percentiles take, and holds whole patterns of the arrivals."""

from __future__ import annotations

import pytest

from setpoint.loop.schedule import MOST_SUSTAINED_S, Schedule, lengthened, schedule_for
from setpoint.requirement import parse_requirement

FILE = "name: x\nprofile: {{prompt_tokens: 9, output_tokens: 9, arrival: {}}}\nslo: {{ttft: {{p99: 1s}}}}\n"


@pytest.mark.parametrize(
    ("arrival", "sustained_s"),
    [
        ("{rate: 10/s}", 56.0),
        ("{process: ramp, rate: 5/s, to: 15/s}", 56.0),
        ("{process: on_off, rate: 40/s, on: 5s, off: 15s}", 60.0),
        ("{process: step, steps: [{rate: 5/s, duration: 100s}, {rate: 15/s, duration: 100s}]}", 200.0),
        ("{process: step, steps: [{rate: 10/s, duration: 10min}]}", 600.0),
        ("{process: on_off, rate: 1/s, on: 20s, off: 50s}", 280.0),
    ],
)
def test_length_of_the_sustained_phase(arrival: str, sustained_s: float) -> None:
    requirement = parse_requirement(FILE.format(arrival), "req.yaml")
    assert schedule_for(requirement).sustained_s == sustained_s
    assert schedule_for(requirement, sustained_s=7.0).sustained_s == 7.0


def test_without_limits_the_batch_is_full_before_and_comes_to_its_end_after() -> None:
    text = FILE.format("{rate: 10/s}").split("slo:")[0]
    schedule = schedule_for(parse_requirement(text, "req.yaml"))
    assert (schedule.warmup_s, schedule.drain_s) == (8.0, 60.0)


@pytest.mark.parametrize(
    ("limits", "drain_s"),
    [
        ("{e2e: {p99: 30s}}", 30.0),
        ("{ttft: {p99: 2s}, itl: {p99: 1s}}", 11.0),
        ("{ttft: {p99: 2s}, tpot: {p99: 100ms}}", 5.0),
        ("{ttft: {p99: 2s}}", 60.0),
        ("{e2e: {p99: 10min}}", 60.0),
    ],
)
def test_answers_are_waited_for_as_long_as_the_limits_allow_the_longest(limits: str, drain_s: float) -> None:
    text = FILE.format("{rate: 10/s}").split("slo:")[0]
    schedule = schedule_for(parse_requirement(f"{text}slo: {limits}\n", "req.yaml"))
    assert schedule.drain_s == drain_s
    assert schedule.usual_drain_s == 5.0


def test_a_budget_lengthens_the_sustained_phase_so_that_three_measurements_fit() -> None:
    requirement = parse_requirement(FILE.format("{rate: 10/s}"), "req.yaml")
    longer = lengthened(Schedule(sustained_s=40.0), requirement, 300.0)
    assert 40.0 < longer.sustained_s < 100.0
    assert longer.warmup_s + longer.sustained_s + longer.drain_s < 100.0
    assert lengthened(Schedule(sustained_s=40.0), requirement, 30.0).sustained_s == 40.0
    assert lengthened(Schedule(sustained_s=40.0), requirement, 1e6).sustained_s == MOST_SUSTAINED_S
    assert lengthened(Schedule(sustained_s=400.0), requirement, 1e6).sustained_s == 400.0


def test_whole_patterns_of_the_arrival_rate_stay_whole() -> None:
    requirement = parse_requirement(FILE.format("{process: on_off, rate: 40/s, on: 5s, off: 15s}"), "req.yaml")
    assert lengthened(Schedule(sustained_s=60.0), requirement, 900.0).sustained_s == 60.0
