"""A requirement from options: what is given counts, what is not stays, what is wrong is named by its option."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.loop.describe import FlagError, LoadFlags, described_requirement, schedule_from, seconds
from setpoint.requirement import ArrivalProcess, ConstantTokens, parse_requirement

BASE = parse_requirement(
    """
name: base
profile:
  prompt_tokens: {median: 100, p95: 200, max: 300}
  output_tokens: 20
  arrival: {process: gamma, rate: 2/s, cv: 3}
  burst: {rate: 6/s, duration: 5s}
slo:
  ttft: {p95: 1s}
""",
    "base.yaml",
)


def test_without_options_the_requirement_stays_as_it_is() -> None:
    assert described_requirement(BASE, LoadFlags()) == BASE


def test_options_change_what_they_name_and_no_more() -> None:
    changed = described_requirement(BASE, LoadFlags(rate="90/min", prompt_tokens="50", burst_rate="4x"))
    assert changed.profile.arrival.rate_rps == 1.5
    assert changed.profile.prompt_tokens == ConstantTokens(value=50)
    assert changed.profile.burst is not None
    assert (changed.profile.burst.rate_rps, changed.profile.burst.duration_s) == (6.0, 5.0)
    assert (changed.slo, changed.profile.output_tokens) == (BASE.slo, BASE.profile.output_tokens)


def test_the_length_of_a_burst_can_be_changed_alone() -> None:
    changed = described_requirement(BASE, LoadFlags(burst_duration="2s"))
    assert changed.profile.burst is not None
    assert (changed.profile.burst.rate_rps, changed.profile.burst.duration_s) == (6.0, 2.0)


def test_another_process_drops_the_variation_of_the_one_before() -> None:
    arrival = described_requirement(BASE, LoadFlags(arrival="poisson")).profile.arrival
    assert (arrival.process, arrival.cv) == (ArrivalProcess.POISSON, 1.0)


def test_without_a_requirement_there_is_a_plain_load_without_limits() -> None:
    plain = described_requirement(None, LoadFlags(burst_rate="3x"))
    assert plain.profile.arrival.rate_rps == 1.0
    assert plain.profile.burst is not None
    assert plain.profile.burst.duration_s == 10.0
    assert not plain.slo.declared()


def test_a_limit_that_the_options_make_senseless_is_refused() -> None:
    with pytest.raises(FlagError, match=r"slo\.ttft.*nobody sees single tokens"):
        described_requirement(BASE, LoadFlags(streaming=False))


@given(st.floats(min_value=0, max_value=86_400))
def test_a_number_of_seconds_is_itself(value_s: float) -> None:
    assert seconds("duration", repr(value_s)) == value_s
    assert seconds("duration", f"{value_s:.3f}s") == pytest.approx(value_s, abs=1e-3)


@given(st.text())
def test_a_duration_is_read_or_refused_by_name(text: str) -> None:
    refusal, value_s = "", 1.0
    try:
        value_s = seconds("duration", text, positive=True)
    except FlagError as error:
        refusal = str(error)
    assert 0 < value_s <= 86_400
    assert not refusal or refusal.startswith("--duration ")


def test_requests_become_a_duration() -> None:
    schedule = schedule_from(BASE, None, 50, 1.0)
    assert (schedule.sustained_s, schedule.warmup_s) == (25.0, 1.0)


@pytest.mark.parametrize(
    ("flags", "rate_rps"),
    [
        (LoadFlags(rate="2/s", arrival="ramp", to_rate="10/s", burst_rate="3x"), 18.0),
        (LoadFlags(rate="10/s", arrival="on_off", on="5s", off="15s", burst_rate="3x"), 7.5),
    ],
)
def test_a_burst_is_a_multiple_of_the_mean_rate_as_in_a_file(flags: LoadFlags, rate_rps: float) -> None:
    burst = described_requirement(None, flags).profile.burst
    assert burst is not None
    assert burst.rate_rps == pytest.approx(rate_rps)
