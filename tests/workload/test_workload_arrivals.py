"""Arrivals have the rate and the dispersion they claim, from the first instant on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.requirement import ArrivalProcess
from setpoint.requirement.arrival import STATIONARY
from setpoint.workload.arrivals import MAX_ARRIVALS, arrival_offsets_s


def counts(process: ArrivalProcess, cv: float, window_s: float, windows: int, seed: int) -> np.ndarray:
    """Arrivals in each of ``windows`` windows of one long run at 10 requests/s."""
    offsets = arrival_offsets_s(process, 10.0, window_s * windows, np.random.default_rng(seed), cv=cv)
    return np.histogram(offsets, bins=windows, range=(0, window_s * windows))[0]


@given(
    process=st.sampled_from(STATIONARY),
    rate_rps=st.floats(0.01, 200),
    duration_s=st.floats(0, 50),
    cv=st.floats(0.1, 5),
    seed=st.integers(0, 2**32),
)
def test_offsets_ascend_within_the_phase(
    process: ArrivalProcess, rate_rps: float, duration_s: float, cv: float, seed: int
) -> None:
    offsets = arrival_offsets_s(process, rate_rps, duration_s, np.random.default_rng(seed), cv=cv)
    assert ((offsets >= 0) & (offsets < duration_s)).all()
    assert (np.diff(offsets) >= 0).all()
    again = arrival_offsets_s(process, rate_rps, duration_s, np.random.default_rng(seed), cv=cv)
    assert (offsets == again).all()


def test_constant_arrivals_are_evenly_spaced() -> None:
    offsets = arrival_offsets_s(ArrivalProcess.CONSTANT, 4.0, 1.0, np.random.default_rng(0))
    assert offsets.tolist() == [0.0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    ("process", "cv", "dispersion"),
    [(ArrivalProcess.POISSON, 1.0, 1.0), (ArrivalProcess.GAMMA, 2.0, 4.0), (ArrivalProcess.GAMMA, 0.5, 0.25)],
)
def test_dispersion_of_counts(process: ArrivalProcess, cv: float, dispersion: float) -> None:
    # 4,000 windows: the relative standard error of a variance is about sqrt(2 / 4000) = 2.2 %. A window of 20 s holds
    # 200 gaps, enough for the limit cv**2 to hold within a few per cent.
    observed = counts(process, cv, 20.0, 4000, seed=7)
    assert observed.var() / observed.mean() == pytest.approx(dispersion, rel=0.1)
    assert observed.mean() == pytest.approx(200, rel=0.01)


@pytest.mark.parametrize(("process", "cv"), [(ArrivalProcess.POISSON, 1.0), (ArrivalProcess.GAMMA, 3.0)])
def test_gaps_have_the_stated_mean_and_variation(process: ArrivalProcess, cv: float) -> None:
    gaps = np.diff(arrival_offsets_s(process, 10.0, 20_000.0, np.random.default_rng(8), cv=cv))
    assert gaps.mean() == pytest.approx(0.1, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


def test_poisson_counts_have_the_poisson_shape() -> None:
    observed = counts(ArrivalProcess.POISSON, 1.0, 0.1, 50_000, seed=9)
    expected = np.exp(-1) / np.array([1, 1, 2, 6, 24])
    assert np.bincount(observed)[:5] / observed.size == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_short_phases_have_the_stated_rate_from_the_start(cv: float) -> None:
    # A renewal process started at an arrival would have (cv**2 - 1) / 2 requests too many: 4 instead of 0 at cv = 3.
    rng = np.random.default_rng(10)
    sizes = [arrival_offsets_s(ArrivalProcess.GAMMA, 5.0, 2.0, rng, cv=cv).size for _ in range(8000)]
    assert np.mean(sizes) == pytest.approx(10.0, abs=4 * np.std(sizes) / np.sqrt(len(sizes)))


def test_too_many_arrivals_are_refused() -> None:
    with pytest.raises(ValueError, match=f"at most {MAX_ARRIVALS} can be planned"):
        arrival_offsets_s(ArrivalProcess.POISSON, 1e5, 1e3, np.random.default_rng(0))


@pytest.mark.parametrize(("rate_rps", "duration_s", "cv"), [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, 0.0)])
def test_impossible_arrivals_are_refused(rate_rps: float, duration_s: float, cv: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        arrival_offsets_s(ArrivalProcess.GAMMA, rate_rps, duration_s, np.random.default_rng(0), cv=cv)
