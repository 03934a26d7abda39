"""A sample in a few figures: what it cannot know it does not say, and what is a lower bound is marked."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.statistics import summarise


def test_a_complete_sample() -> None:
    values = np.random.default_rng(1).permutation(np.arange(1.0, 1001.0))
    found = summarise(values)
    assert (found.n, found.p50, found.p99, found.max, found.mean) == (1000, 500, 990, 1000, 500.5)
    assert (found.censored, found.at_least) == (None, None)
    for point, interval in ((found.p50, found.p50_ci), (found.p90, found.p90_ci), (found.p99, found.p99_ci)):
        assert point is not None
        assert interval is not None
        assert interval[0] < point < interval[1]


def test_a_small_sample_keeps_quiet() -> None:
    few = summarise([1.0, 2.0, 3.0])
    assert (few.p50, few.p90, few.p50_ci, few.max) == (2.0, None, None, 3.0)
    assert summarise([]).n == 0


def test_infinite_values_leave_no_figure_that_would_flatter() -> None:
    lost = summarise([1.0] * 50 + [math.inf] * 50)
    assert (lost.p50, lost.p99, lost.mean, lost.max, lost.at_least) == (1.0, None, None, None, None)


def test_a_percentile_that_depends_on_the_unfinished_is_a_lower_bound() -> None:
    cut = summarise([*np.arange(1.0, 100.0), 3.0], [False] * 99 + [True])
    assert (cut.n, cut.censored, cut.mean, cut.max, cut.p99_ci) == (100, 1, None, None, None)
    assert cut.p50 is not None
    assert 50.0 <= cut.p50 <= 51.0
    assert cut.at_least == ("p50", "p90", "p95", "p99")
    overloaded = summarise([*np.arange(1.0, 91.0), *np.arange(20.0, 30.0)], [False] * 90 + [True] * 10)
    assert overloaded.p99 == 90.0
    assert overloaded.at_least is not None
    assert "p99" in overloaded.at_least


def test_in_a_steady_load_the_unfinished_are_allowed_for() -> None:
    rng = np.random.default_rng(2)
    waits, watched = rng.exponential(1.0, 4000), rng.uniform(0.0, 8.0, 4000)
    steady = summarise(np.minimum(waits, watched), waits > watched, cut_off_at_random=True)
    assert steady.at_least is None
    assert steady.p95 == pytest.approx(-math.log(0.05), rel=0.06)


@given(st.lists(st.tuples(st.floats(0.0, 100.0), st.booleans()), min_size=1, max_size=150), st.booleans())
def test_no_figure_is_below_what_is_known_for_certain(rows: list[tuple[float, bool]], steady: bool) -> None:
    values, censored = zip(*rows, strict=True)
    found, least = summarise(values, censored, cut_off_at_random=steady), summarise(values)
    for name in ("p50", "p90", "p95", "p99"):
        value, bound = getattr(found, name), getattr(least, name)
        assert value is None or bound is None or value >= bound
