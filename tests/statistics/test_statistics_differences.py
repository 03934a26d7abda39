"""Differences and ratios of figures with intervals, and the spread of one sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statistics_processes import NORMAL, autoregressive

from setpoint.statistics import (
    Estimate,
    difference,
    mean_of_rounds,
    percentile,
    percentile_interval,
    ratio,
    ratio_interval,
)

positive = st.floats(0.01, 100.0)


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    value = draw(positive)
    return Estimate(value, (value * draw(st.floats(0.1, 1.0)), value * draw(st.floats(1.0, 10.0))))


@given(estimates(), estimates())
def test_the_difference_turns_round_with_its_sides(a: Estimate, b: Estimate) -> None:
    forward, back = difference(a, b), difference(b, a)
    assert forward.interval is not None
    assert back.interval is not None
    assert a.value is not None
    assert b.value is not None
    assert forward.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert forward.interval[0] <= b.value - a.value <= forward.interval[1]
    quotient = ratio(a, b).interval
    assert quotient is not None
    assert quotient[0] - 1e-9 <= b.value / a.value <= quotient[1] * (1.0 + 1e-9)


def test_symmetric_intervals_add_as_squares() -> None:
    found = difference(Estimate(10.0, (7.0, 13.0)), Estimate(20.0, (16.0, 24.0)))
    assert (found.value, found.interval) == (10.0, (5.0, 15.0))


def test_open_ends_stay_open_and_infinite_figures_decide() -> None:
    open_above = difference(Estimate(1.0, (0.5, math.inf)), Estimate(2.0, (1.5, 3.0)))
    assert open_above.interval is not None
    assert open_above.interval[0] == -math.inf
    assert open_above.interval[1] == pytest.approx(1.0 + math.hypot(1.0, 0.5))
    lost = difference(Estimate(1.0, (0.5, 2.0)), Estimate(math.inf, (9.0, math.inf)))
    assert lost.interval == (7.0, math.inf)
    assert difference(Estimate(math.inf, (math.inf, math.inf)), Estimate(math.inf, (math.inf, math.inf))).interval is None
    assert difference(Estimate(None, None), Estimate(1.0, (0.0, 2.0))) == Estimate(None, None)
    assert ratio(Estimate(0.0, (0.0, 1.0)), Estimate(1.0, (0.5, 2.0))).value is None


def test_differences_of_percentiles_cover_as_stated() -> None:
    rng = np.random.default_rng(5)
    truth, covered, runs = 0.5 * NORMAL.inv_cdf(0.9), 0, 200
    for a, b in zip(autoregressive(rng, runs, 1500, 0.5), autoregressive(rng, runs, 1500, 0.5), strict=True):
        pair = [Estimate(percentile(each, 90.0), percentile_interval(each, 90.0)) for each in (a, 1.5 * b)]
        found = difference(*pair).interval
        covered += found is not None and found[0] <= truth <= found[1]
    assert covered >= 0.92 * runs


def test_rounds_are_students() -> None:
    # t quantile with 4 degrees of freedom at 97.5 % is 2.776.
    found = mean_of_rounds([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.value == 3.0
    assert found.interval is not None
    assert found.interval[1] - 3.0 == pytest.approx(2.776 * math.sqrt(2.5 / 5), rel=0.005)
    assert mean_of_rounds([1.0]) == Estimate(1.0, None)
    assert mean_of_rounds([0.0, 0.0, 0.0]) == Estimate(0.0, (0.0, 0.0))
    assert mean_of_rounds([1.0, math.inf]) == Estimate(None, None)


def test_rounds_that_are_all_the_same_say_nothing_of_the_next() -> None:
    """Seen: an interval of no width, which every difference but none at all stands out of."""
    assert mean_of_rounds([2.0, 2.0, 2.0]) == Estimate(2.0, None)
    assert mean_of_rounds([0.7 - 0.6, 0.4 - 0.3, 0.2 - 0.1]).interval is None


@pytest.mark.parametrize("phi", [0.0, 0.5])
def test_spread_intervals_cover_as_stated(phi: float) -> None:
    truth, covered = math.exp(0.3 * NORMAL.inv_cdf(0.99)), 0
    for series in autoregressive(np.random.default_rng(4), 100, 3000, phi):
        interval = ratio_interval(np.exp(0.3 * series))
        covered += interval is not None and interval[0] <= truth <= interval[1]
    assert covered >= 93


def test_spread_intervals_stay_open_where_the_sample_is_small() -> None:
    rng = np.random.default_rng(6)
    small = ratio_interval(rng.lognormal(size=200))
    assert small is not None
    assert small[1] == math.inf
    assert ratio_interval([]) is None
    assert ratio_interval([0.0] * 500 + [1.0] * 20) is None
    lost = ratio_interval(rng.permutation([1.0] * 900 + [math.inf] * 100))
    assert lost is None or lost[1] == math.inf
