"""Arrivals whose rate changes: read from YAML with the line of every mistake, dumped and read again, and their means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from setpoint.requirement import (
    Arrival,
    ArrivalProcess,
    Requirement,
    RequirementError,
    Step,
    parse_requirement,
    render_requirement,
)
from setpoint.requirement.arrival import MIN_PATTERN_S, STATIONARY

STEPS = (Step(rate_rps=2.0, duration_s=30.0), Step(rate_rps=8.0, duration_s=10.0))
RATES = st.floats(0.01, 1000)
TIMES = st.floats(0.01, 1000)


def file_with(arrival: str) -> str:
    return f"name: x\nprofile:\n  prompt_tokens: 9\n  output_tokens: 9\n  arrival: {arrival}\n"


def arrivals() -> st.SearchStrategy[Arrival]:
    steps = st.lists(st.builds(Step, rate_rps=RATES, duration_s=TIMES), min_size=1, max_size=5)
    return st.one_of(
        st.builds(Arrival, process=st.sampled_from(STATIONARY[:2]), rate_rps=RATES),
        st.builds(Arrival, process=st.just(ArrivalProcess.GAMMA), rate_rps=RATES, cv=st.floats(0.1, 10)),
        st.builds(Arrival, process=st.just(ArrivalProcess.RAMP), rate_rps=RATES, to_rps=RATES),
        st.builds(Arrival.stepped, steps),
        st.builds(
            Arrival,
            process=st.just(ArrivalProcess.ON_OFF),
            rate_rps=st.floats(1, 1000),
            on_s=TIMES,
            off_s=TIMES,
            off_rate_rps=st.floats(0, 1),
        ),
    )


@pytest.mark.parametrize(
    ("text", "arrival", "mean_rps", "peak_rps", "calm_rps"),
    [
        (
            "{process: ramp, rate: 2/s, to: 10/s}",
            Arrival(process=ArrivalProcess.RAMP, rate_rps=2.0, to_rps=10.0),
            6.0,
            10.0,
            2.0,
        ),
        (
            "{process: step, steps: [{rate: 2/s, duration: 30s}, {rate: 8/s, duration: 10s}]}",
            Arrival.stepped(STEPS),
            3.5,
            8.0,
            2.0,
        ),
        (
            "{process: on_off, rate: 10/s, on: 5s, off: 15s, off_rate: 60/min}",
            Arrival(process=ArrivalProcess.ON_OFF, rate_rps=10.0, on_s=5.0, off_s=15.0, off_rate_rps=1.0),
            3.25,
            10.0,
            3.25,
        ),
        (
            "{process: on_off, rate: 10/s, on: 5s, off: 15s}",
            Arrival(process=ArrivalProcess.ON_OFF, rate_rps=10.0, on_s=5.0, off_s=15.0),
            2.5,
            10.0,
            2.5,
        ),
    ],
)
def test_processes_are_read(text: str, arrival: Arrival, mean_rps: float, peak_rps: float, calm_rps: float) -> None:
    found = parse_requirement(file_with(text), "req.yaml").profile.arrival
    assert found == arrival
    assert (found.mean_rps, found.peak_rps, found.calm_rps) == (mean_rps, peak_rps, calm_rps)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{process: ramp, rate: 2/s}", "arrival.to: found nothing; allowed: this key is required with ramp, such as to: 10/s"),
        ("{process: ramp, rate: 2/s, to: 10}", '5: profile.arrival.to: found "10"; allowed: a rate with its unit'),
        ("{process: ramp, to: 2/s}", "profile.arrival.rate: found nothing; allowed: this key is required"),
        ("{rate: 2/s, to: 9/s}", "no to with poisson arrivals; write process: ramp to choose it"),
        ("{process: gamma, rate: 2/s, on: 9s}", "no on with gamma arrivals; write process: on_off to choose it"),
        ("{process: step}", "profile.arrival.steps: found nothing; allowed: this key is required with step"),
        ("{process: step, steps: []}", "profile.arrival.steps: found a list; allowed: a list with at least one entry"),
        ("{process: step, steps: [{rate: 1/s}]}", "profile.arrival.steps.0.duration: found nothing"),
        ("{process: step, steps: [{rate: 0/s, duration: 1s}]}", "at least one step with a rate above 0"),
        ("{process: step, steps: [{rate: 1/s, duration: 0s}]}", 'steps.0.duration: found "0s"; allowed: at least 0.001 s'),
        ("{process: step, rate: 9/s, steps: [{rate: 1/s, duration: 1s}]}", "no rate beside steps, which have their own (1/s"),
        ("{rate: 9/s, steps: [{rate: 1/s, duration: 1s}]}", "no steps with poisson arrivals; write process: step"),
        ("{process: on_off, rate: 9/s, on: 1s}", "arrival.off: found nothing; allowed: this key is required with on_off"),
        ("{process: on_off, rate: 1/s, on: 1s, off: 1s, off_rate: 2/s}", 'off_rate: found "2/s"; allowed: at most the rate'),
        ("{process: rmap, rate: 1/s}", "did you mean ramp?"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, message: str) -> None:
    with pytest.raises(RequirementError) as caught:
        parse_requirement(file_with(text), "req.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("req.yaml:5: profile.arrival")


def test_bursts_are_measured_against_the_mean() -> None:
    text = file_with("{process: ramp, rate: 2/s, to: 10/s}")
    requirement = parse_requirement(text + "  burst: {rate: 3x, duration: 1s}\n", "req.yaml")
    assert requirement.profile.burst is not None
    assert requirement.profile.burst.rate_rps == 18.0
    with pytest.raises(RequirementError, match=r"above the sustained rate \(6/s\)"):
        parse_requirement(text + "  burst: {rate: 5/s, duration: 1s}\n", "req.yaml")


@given(arrivals())
def test_dumped_arrivals_are_read_again(arrival: Arrival) -> None:
    text = render_requirement(name="x")
    requirement = parse_requirement(text, "x")
    changed = requirement.model_copy(update={"profile": requirement.profile.model_copy(update={"arrival": arrival})})
    assert Requirement.model_validate_json(changed.model_dump_json()) == changed


@given(arrivals(), st.floats(0.1, 10))
def test_scaling_changes_every_rate_alike(arrival: Arrival, factor: float) -> None:
    scaled = arrival.at_mean(arrival.mean_rps * factor)
    assert scaled.mean_rps == pytest.approx(arrival.mean_rps * factor)
    assert scaled.peak_rps == pytest.approx(arrival.peak_rps * factor)
    assert scaled.calm_rps == pytest.approx(arrival.calm_rps * factor)
    assert scaled.pattern_s == pytest.approx(arrival.pattern_s) if arrival.pattern_s else scaled.pattern_s is None
    assert (scaled.process, scaled.cv) == (arrival.process, arrival.cv)


@pytest.mark.parametrize(
    "fields",
    [
        {"process": "ramp", "rate_rps": 1},
        {"process": "step", "rate_rps": 1},
        {"process": "step", "rate_rps": 1, "steps": [{"rate_rps": 2, "duration_s": 1}]},
        {"process": "poisson", "rate_rps": 1, "off_s": 1},
    ],
)
def test_contradictions_are_refused_however_they_are_made(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Arrival.model_validate(fields)


@pytest.mark.parametrize(
    "arrival",
    [
        {"process": "ramp", "rate": "2/s", "to": "10/s"},
        {"process": "step", "steps": [{"rate": "2/s", "duration": "30s"}]},
        {"process": "on_off", "rate": "9/s", "on": "5s", "off": "15s", "off_rate": "1/s"},
        {"process": "gamma", "rate": "9/s", "cv": 2},
    ],
)
def test_rendered_arrivals_load_again(arrival: dict[str, object]) -> None:
    found = parse_requirement(render_requirement(name="x", arrival=arrival), "x").profile.arrival
    assert found.process == arrival["process"]


@given(arrivals(), st.floats(0.5, 5000))
def test_a_pattern_as_long_as_wanted_has_its_rates(arrival: Arrival, pattern_s: float) -> None:
    if arrival.pattern_s is None:
        with pytest.raises(ValueError, match="have no pattern"):
            arrival.at_pattern(pattern_s)
        return
    found = arrival.at_pattern(pattern_s)
    assert [step.rate_rps for step in found.pattern] == [step.rate_rps for step in arrival.pattern]
    if all(step.duration_s > 2 * MIN_PATTERN_S for step in found.pattern):
        assert found.pattern_s == pytest.approx(pattern_s)
        assert found.mean_rps == pytest.approx(arrival.mean_rps)
