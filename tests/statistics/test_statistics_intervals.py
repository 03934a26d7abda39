"""Intervals: their definitions as properties. How often they cover is in ``test_statistics_coverage``."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statistics_processes import autoregressive

from setpoint.statistics import mean_interval, percentile, percentile_interval, proportion_interval, share_interval

samples = st.lists(st.floats(min_value=0.0, max_value=1e6, allow_nan=False), min_size=1, max_size=200)
percentiles = st.floats(min_value=0.5, max_value=99.5)


@given(samples, percentiles)
def test_the_order_of_a_sample_does_not_move_its_interval_at_given_n(sample: list[float], p: float) -> None:
    assert percentile(sample, p) == percentile(sample[::-1], p)
    assert percentile_interval(sample, p, 0.95, 30.0) == percentile_interval(sample[::-1], p, 0.95, 30.0)


@given(samples, percentiles)
def test_the_interval_contains_the_percentile_and_widens_with_confidence(sample: list[float], p: float) -> None:
    point = percentile(sample, p)
    inner = percentile_interval(sample, p, 0.95, float(len(sample)))
    outer = percentile_interval(sample, p, 0.99, float(len(sample)))
    if inner is not None and point is not None:
        assert inner[0] <= point <= inner[1]
    if inner is not None and outer is not None:
        assert outer[0] <= inner[0]
        assert outer[1] >= inner[1]


@given(samples, percentiles)
def test_an_interval_turns_round_with_its_sample(sample: list[float], p: float) -> None:
    """P10 of -x is minus P90 of x, whatever the dependence."""
    there, back = percentile_interval(sample, p), percentile_interval([-value for value in sample], 100.0 - p)
    assert (there is None) == (back is None)
    if there is not None and back is not None and p != 50.0:
        assert there == pytest.approx((-back[1], -back[0]))


@pytest.mark.parametrize(("p", "n"), [(50.0, 11), (90.0, 55), (95.0, 110), (99.0, 550)])
def test_how_many_independent_values_bound_a_percentile_on_both_sides(p: float, n: int) -> None:
    for size, bounded in ((n - 1, False), (n, True)):
        interval = percentile_interval(np.arange(size), p, effective_n=size)
        assert interval is not None
        assert math.isfinite(interval[0])
        assert math.isfinite(interval[1]) is bounded


def test_a_tiny_sample_has_no_interval() -> None:
    assert percentile_interval([1.0, 2.0, 3.0], 50.0) is None
    assert percentile_interval([], 50.0) is None


def test_a_sample_shorter_than_its_own_wandering_has_no_interval() -> None:
    assert percentile_interval(np.linspace(0.0, 1.0, 500), 50.0) is None


def test_the_median_interval_is_the_textbook_one_between_its_ranks() -> None:
    # Sign-test ranks of the median at 95 %: 6 and 15 of 20 values cover 95.9 %, 7 and 14 cover 88.5 %.
    interval = percentile_interval(np.arange(1, 21), 50.0, effective_n=20)
    assert interval is not None
    assert 6.0 < interval[0] < 7.0
    assert 14.0 < interval[1] < 15.0


def test_infinite_values_make_an_upper_end_infinite_and_never_a_lower_one_nan() -> None:
    sample = np.random.default_rng(1).permutation([1.0] * 940 + [math.inf] * 60)
    assert percentile_interval(sample, 50.0) == (1.0, 1.0)
    interval = percentile_interval(sample, 95.0)
    assert interval is not None
    assert interval == (1.0, math.inf)


def test_mean_intervals_cover_as_stated() -> None:
    intervals = [mean_interval(each) for each in autoregressive(np.random.default_rng(3), 200, 500, 0.8)]
    assert sum(interval is not None and interval[0] <= 0.0 <= interval[1] for interval in intervals) >= 183
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
    with pytest.raises(ValueError, match="successes"):
        proportion_interval(3, 2)


@given(st.integers(1, 500), st.data())
def test_the_proportion_interval_contains_the_proportion(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    interval = proportion_interval(successes, n)
    fewer = proportion_interval(successes, n, effective_n=n / 3)
    assert interval is not None
    assert fewer is not None
    assert 0.0 <= fewer[0] <= interval[0] <= successes / n <= interval[1] <= fewer[1] <= 1.0


def test_shares_of_dependent_hits_cover_as_stated() -> None:
    covered = 0
    for series in autoregressive(np.random.default_rng(5), 200, 1000, 0.8):
        interval = share_interval(series <= 1.2815515655, severity=series)
        covered += interval is not None and interval[0] <= 0.9 <= interval[1]
    assert covered >= 184
    assert share_interval([]) is None
