"""Arrivals follow the rate they are to follow: counts, dispersion, and nothing but the seed decides them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.requirement import Arrival, ArrivalProcess, Step
from setpoint.workload import offsets_of
from setpoint.workload.rate_curve import curve_of

RAMP = Arrival(process=ArrivalProcess.RAMP, rate_rps=2.0, to_rps=18.0)
STEPS = Arrival.stepped(
    (Step(rate_rps=5.0, duration_s=4.0), Step(rate_rps=0.0, duration_s=2.0), Step(rate_rps=20.0, duration_s=3.0))
)
ON_OFF = Arrival(process=ArrivalProcess.ON_OFF, rate_rps=30.0, on_s=2.0, off_s=6.0, off_rate_rps=1.0)
CHANGING = [RAMP, STEPS, ON_OFF]


def arrivals() -> st.SearchStrategy[Arrival]:
    rates, times = st.floats(0.5, 100), st.floats(0.05, 5)
    steps = st.lists(st.builds(Step, rate_rps=rates, duration_s=times), min_size=1, max_size=6)
    ramps = st.builds(Arrival, process=st.just(ArrivalProcess.RAMP), rate_rps=rates, to_rps=rates)
    on_off = st.builds(Arrival, process=st.just(ArrivalProcess.ON_OFF), rate_rps=rates, on_s=times, off_s=times)
    return st.one_of(ramps, st.builds(Arrival.stepped, steps), on_off)


@given(arrival=arrivals(), duration_s=st.floats(0.1, 30), seed=st.integers(0, 2**32))
def test_offsets_ascend_within_the_phase_and_repeat_from_the_seed(arrival: Arrival, duration_s: float, seed: int) -> None:
    offsets_s = offsets_of(arrival, duration_s, np.random.default_rng(seed))
    assert ((offsets_s >= 0) & (offsets_s < duration_s)).all()
    assert (np.diff(offsets_s) >= 0).all()
    assert (offsets_s == offsets_of(arrival, duration_s, np.random.default_rng(seed))).all()


@given(arrival=arrivals(), duration_s=st.floats(0.1, 30), shares=st.lists(st.floats(0, 0.999), min_size=1, max_size=20))
def test_times_and_expected_counts_are_inverse(arrival: Arrival, duration_s: float, shares: list[float]) -> None:
    curve = curve_of(arrival, duration_s)
    counts = np.array(shares) * curve.total
    times_s = curve.times_s(counts)
    assert ((times_s >= 0) & (times_s < duration_s)).all()
    assert curve.expected_before(times_s) == pytest.approx(counts, rel=1e-6, abs=1e-6 * curve.total)
    assert (curve.rate_rps(times_s) >= 0).all()


@settings(max_examples=40)
@given(arrival=arrivals(), duration_s=st.floats(0.5, 30))
def test_the_curve_is_the_integral_of_the_rate(arrival: Arrival, duration_s: float) -> None:
    curve = curve_of(arrival, duration_s)
    middles = (np.arange(20_000) + 0.5) * duration_s / 20_000
    assert float(curve.rate_rps(middles).mean() * duration_s) == pytest.approx(curve.total, rel=0.02)


@pytest.mark.parametrize("arrival", CHANGING, ids=lambda arrival: arrival.process.value)
def test_counts_follow_the_rate_with_the_dispersion_of_poisson(arrival: Arrival) -> None:
    # 3,000 runs of 18 s in 36 windows: the mean of a window is known to 1-2 % of its standard deviation.
    rng = np.random.default_rng(3)
    edges = np.linspace(0.0, 18.0, 37)
    counts = np.array([np.histogram(offsets_of(arrival, 18.0, rng), bins=edges)[0] for _ in range(3000)])
    curve = curve_of(arrival, 18.0)
    expected = np.diff(np.append(curve.expected_before(edges[:-1]), curve.total))
    assert counts.mean(axis=0) == pytest.approx(expected, abs=5 * float(np.sqrt(expected.max() / 3000)) + 1e-9)
    busy = expected > 0.2
    assert (counts.var(axis=0)[busy] / expected[busy]).mean() == pytest.approx(1.0, abs=0.03)
    totals = counts.sum(axis=1)
    assert totals.var() / totals.mean() == pytest.approx(1.0, abs=0.12)


def test_nothing_arrives_where_the_rate_is_zero() -> None:
    offsets_s = offsets_of(STEPS, 900.0, np.random.default_rng(4)) % 9.0
    assert not ((offsets_s > 4.0) & (offsets_s < 6.0)).any()
    assert ((offsets_s > 6.0).sum()) == pytest.approx(100 * 60, rel=0.05)


def test_a_ramp_ends_with_the_phase_and_a_pattern_goes_on() -> None:
    for duration_s in (10.0, 40.0):
        assert curve_of(RAMP, duration_s).total == pytest.approx(10.0 * duration_s)
    assert curve_of(STEPS, 9.0).total == pytest.approx(80.0)
    assert curve_of(STEPS, 13.0).total == pytest.approx(100.0)
    assert curve_of(ON_OFF, 9.0).total == pytest.approx(2 * 30 + 6 + 30)


def test_too_much_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 1000000 can be planned"):
        offsets_of(RAMP, 1e6, np.random.default_rng(0))
    often = Arrival(process=ArrivalProcess.ON_OFF, rate_rps=1.0, on_s=0.001, off_s=0.001)
    with pytest.raises(ValueError, match="would repeat too often"):
        offsets_of(often, 10_000.0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="have no rate that changes"):
        curve_of(Arrival(rate_rps=1.0), 1.0)
    assert offsets_of(RAMP, 0.0, np.random.default_rng(0)).size == 0
