"""Percentiles and intervals: their definitions as properties, their coverage by simulation from fixed seeds."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.statistics import (
    FloatArray,
    effective_sample_size,
    mean_interval,
    percentile,
    percentile_effective_n,
    percentile_interval,
    proportion_interval,
    ratio_interval,
    summarise,
)

values = st.floats(min_value=0.0, max_value=1e6, allow_nan=False)
samples = st.lists(values, min_size=1, max_size=200)
percentiles = st.floats(min_value=0.5, max_value=99.5)


def autoregressive(n: int, phi: float, rng: np.random.Generator) -> FloatArray:
    """A standard normal series whose neighbours correlate by ``phi``."""
    series = rng.standard_normal(n)
    for i in range(1, n):
        series[i] = phi * series[i - 1] + math.sqrt(1.0 - phi * phi) * series[i]
    return series


@given(samples, percentiles)
def test_percentile_is_the_least_value_that_covers_p(sample: list[float], p: float) -> None:
    found = percentile(sample, p)
    if len(sample) * (100.0 - p) < 100.0 - 1e-6:
        assert found is None
        return
    assert found in sample
    up_to = sum(value <= found for value in sample)
    below = sum(value < found for value in sample)
    assert up_to >= len(sample) * p / 100.0 - 1e-6
    assert below < len(sample) * p / 100.0 + 1e-6


@given(samples, st.data())
def test_censoring_never_lowers_a_percentile(sample: list[float], data: st.DataObject) -> None:
    censored = data.draw(st.lists(st.booleans(), min_size=len(sample), max_size=len(sample)))
    p = data.draw(percentiles)
    full, cut = percentile(sample, p), percentile(sample, p, censored)
    assert cut is None or (full is not None and cut >= full)
    wide, narrow = percentile_interval(sample, p, 0.95, 20.0, censored), percentile_interval(sample, p, 0.95, 20.0)
    if wide is not None and narrow is not None:
        assert wide[0] <= narrow[0]
        assert wide[1] >= narrow[1]


@given(samples, percentiles)
def test_the_order_of_a_sample_does_not_move_its_percentile_or_its_interval_at_given_n(sample: list[float], p: float) -> None:
    assert percentile(sample, p) == percentile(sample[::-1], p)
    assert percentile_interval(sample, p, 0.95, 30.0) == percentile_interval(sample[::-1], p, 0.95, 30.0)


@given(samples, percentiles)
def test_the_interval_contains_the_percentile_and_widens_as_information_shrinks(sample: list[float], p: float) -> None:
    point = percentile(sample, p)
    inner = percentile_interval(sample, p, 0.95, float(len(sample)))
    outer = percentile_interval(sample, p, 0.99, float(len(sample)))
    if inner is not None and point is not None:
        assert inner[0] <= point <= inner[1]
    if inner is not None and outer is not None:
        assert outer[0] <= inner[0]
        assert outer[1] >= inner[1]


def test_a_percentile_among_the_censored_is_not_invented() -> None:
    sample, censored = [1.0] * 90 + [5.0] * 10, [False] * 90 + [True] * 10
    assert percentile(sample, 90.0, censored) == 1.0
    assert percentile(sample, 91.0, censored) is None


def test_infinite_values_are_ranked_like_any_other() -> None:
    sample = [1.0] * 95 + [math.inf] * 5
    assert percentile(sample, 95.0) == 1.0
    assert percentile(sample, 96.0) == math.inf


@pytest.mark.parametrize(("n", "bounded"), [(100, False), (367, False), (368, True)])
def test_p99_has_an_upper_end_from_368_values_on(n: int, bounded: bool) -> None:
    interval = percentile_interval(np.arange(n), 99.0, effective_n=n)
    assert interval is not None
    assert math.isfinite(interval[0])
    assert math.isfinite(interval[1]) is bounded


def test_a_tiny_sample_has_no_interval() -> None:
    assert percentile_interval([1.0, 2.0, 3.0], 50.0) is None
    assert percentile_interval([], 50.0) is None


def test_the_median_interval_is_the_textbook_one() -> None:
    # Sign-test ranks of the median at 95 %: 6 and 15 of 20 values.
    assert percentile_interval(np.arange(1, 21), 50.0, effective_n=20) == (6.0, 15.0)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        percentile([1.0], 100.0)
    with pytest.raises(ValueError, match="NaN"):
        percentile([math.nan], 50.0)
    with pytest.raises(ValueError, match="shapes"):
        percentile([1.0], 50.0, [True, False])
    with pytest.raises(ValueError, match="successes"):
        proportion_interval(3, 2)


@pytest.mark.parametrize(("phi", "expected"), [(0.0, 1.0), (0.5, 1 / 3), (0.8, 1 / 9)])
def test_effective_sample_size_of_an_autoregressive_series(phi: float, expected: float) -> None:
    rng = np.random.default_rng(1)
    shares = [effective_sample_size(autoregressive(2000, phi, rng)) / 2000 for _ in range(20)]
    assert np.mean(shares) == pytest.approx(expected, rel=0.15)


@given(st.lists(st.one_of(values, st.just(0.0)), max_size=100))
def test_effective_sample_size_is_between_one_and_n(sample: list[float]) -> None:
    assert min(1, len(sample)) <= effective_sample_size(sample) <= len(sample)


@pytest.mark.parametrize("phi", [0.0, 0.8])
@pytest.mark.parametrize("p", [50.0, 95.0, 99.0])
def test_percentile_intervals_cover_as_stated(phi: float, p: float) -> None:
    rng = np.random.default_rng(2)
    truth, trials = NormalDist().inv_cdf(p / 100.0), 150
    covered = naive = 0
    for _ in range(trials):
        series = autoregressive(1500, phi, rng)
        interval = percentile_interval(series, p)
        covered += interval is not None and interval[0] <= truth <= interval[1]
        interval = percentile_interval(series, p, effective_n=1500)
        naive += interval is not None and interval[0] <= truth <= interval[1]
    assert covered >= 0.90 * trials
    if phi:
        assert naive < 0.90 * trials, "ignoring the correlation would have covered too: the test shows nothing"


def test_mean_intervals_cover_as_stated() -> None:
    rng = np.random.default_rng(3)
    intervals = [mean_interval(autoregressive(500, 0.8, rng)) for _ in range(200)]
    assert sum(interval is not None and interval[0] <= 0.0 <= interval[1] for interval in intervals) >= 180
    assert mean_interval([1.0, math.inf, 2.0, 3.0]) is None
    assert mean_interval([1.0, 2.0]) is None


def test_the_mean_interval_is_students() -> None:
    # t quantile with 4 degrees of freedom at 97.5 % is 2.776.
    interval = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0], effective_n=5)
    assert interval is not None
    assert interval[1] - 3.0 == pytest.approx(2.776 * math.sqrt(2.5 / 5), rel=0.005)


def test_the_proportion_interval_is_wilsons() -> None:
    # Published example: 15 of 50 gives 0.191 to 0.438.
    assert proportion_interval(15, 50) == pytest.approx((0.1910, 0.4375), abs=5e-4)
    assert proportion_interval(0, 0) is None


@given(st.integers(1, 500), st.data())
def test_the_proportion_interval_contains_the_proportion(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    interval = proportion_interval(successes, n)
    fewer = proportion_interval(successes, n, effective_n=n / 3)
    assert interval is not None
    assert fewer is not None
    assert 0.0 <= fewer[0] <= interval[0] <= successes / n <= interval[1] <= fewer[1] <= 1.0


@pytest.mark.parametrize("phi", [0.0, 0.5])
def test_ratio_intervals_cover_as_stated(phi: float) -> None:
    rng = np.random.default_rng(4)
    truth = math.exp(0.3 * NormalDist().inv_cdf(0.99))
    covered = 0
    for _ in range(60):
        interval = ratio_interval(np.exp(0.3 * autoregressive(2000, phi, rng)), seed=5)
        covered += interval is not None and interval[0] <= truth <= interval[1]
    assert covered >= 52


def test_ratio_intervals_repeat_from_the_seed_and_stay_open_where_the_sample_is_small() -> None:
    rng = np.random.default_rng(6)
    large = rng.lognormal(size=20_000)
    first = ratio_interval(large, seed=7)
    assert first == ratio_interval(large, seed=7)
    assert first != ratio_interval(large, seed=8)
    small = ratio_interval(rng.lognormal(size=100), seed=7)
    assert small is not None
    assert small[1] == math.inf
    assert ratio_interval([], seed=7) is None
    assert ratio_interval([0.0] * 500 + [1.0] * 20, seed=7) is None


def test_ratio_of_a_sample_with_infinite_values() -> None:
    assert ratio_interval(([1.0] * 9 + [math.inf]) * 100, seed=1) == (math.inf, math.inf)


def test_a_summary_keeps_quiet_about_what_it_cannot_know() -> None:
    complete = summarise(np.arange(1.0, 1001.0))
    assert (complete.n, complete.p50, complete.p99, complete.max, complete.mean) == (1000, 500, 990, 1000, 500.5)
    cut = summarise([*np.arange(1.0, 100.0), 3.0], [False] * 99 + [True])
    assert (cut.n, cut.mean, cut.max, cut.p99_ci) == (100, None, None, None)
    assert cut.p90 == 90
    few = summarise([1.0, 2.0, 3.0])
    assert (few.p50, few.p90, few.max) == (2.0, None, 3.0)
    assert summarise([]).n == 0
    lost = summarise([1.0] * 50 + [math.inf] * 50)
    assert (lost.p50, lost.p99, lost.mean) == (1.0, None, None)


def test_clustered_lateness_leaves_less_information_than_scattered_lateness() -> None:
    clustered = np.array([1.0] * 900 + [9.0] * 100)
    scattered = np.tile([1.0] * 9 + [9.0], 100)
    assert percentile_effective_n(clustered, 90.0) < 50 < percentile_effective_n(scattered, 90.0)
