"""Gauges and counters between two instants, against what is known of the lines they were drawn from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.measure.series import Series

INFINITY = float("inf")


def test_gaps_are_left_out() -> None:
    series = Series.of([0.0, 1.0, 2.0, 3.0], [1.0, None, 5.0])
    assert series.times_s.tolist() == [0.0, 2.0]
    assert series.values.tolist() == [1.0, 5.0]


def test_gauge_between_two_instants() -> None:
    series = Series.of([0.0, 1.0, 3.0, 4.0], [9.0, 2.0, 6.0, 9.0])
    assert series.peak(0.5, 4.0) == 6.0
    # From 2 to 6 over two seconds.
    assert series.mean(0.5, 4.0) == 4.0
    assert series.mean(0.5, 1.5) == 2.0
    assert (series.peak(1.1, 2.9), series.mean(1.1, 2.9)) == (None, None)


def test_counter_is_read_off_the_lines_around_the_interval() -> None:
    series = Series.of([0.0, 2.0, 4.0], [100.0, 110.0, 150.0])
    assert series.rise(-INFINITY, INFINITY) == 50.0
    assert series.rise(1.0, 3.0) == 25.0
    assert series.rise(0.5, 0.6) == pytest.approx(0.5)


@pytest.mark.parametrize(("start_s", "end_s"), [(-3.0, -1.0), (5.0, 9.0)])
def test_counter_outside_what_was_seen_is_unknown(start_s: float, end_s: float) -> None:
    assert Series.of([0.0, 4.0], [1.0, 2.0]).rise(start_s, end_s) is None
    assert Series.of([0.0], [1.0]).rise(-1.0, 1.0) is None
    assert Series.of([], []).rise(-1.0, 1.0) is None


def test_restarted_counter_loses_only_the_step_of_the_restart() -> None:
    series = Series.of([0.0, 1.0, 2.0, 3.0], [50.0, 60.0, 5.0, 25.0])
    assert series.rise(-INFINITY, INFINITY) == 30.0
    assert series.falls_s() == [2.0]


def test_area_of_a_line_reaches_to_the_ends_of_the_interval() -> None:
    series = Series.of([0.0, 10.0], [100.0, 200.0])
    assert series.area(0.0, 5.0) == pytest.approx(0.5 * (100 + 150) * 5)
    # Outside what was seen the nearest value stands in.
    assert series.area(-2.0, 10.0) == pytest.approx(200 + 1500)
    assert series.area(-INFINITY, 5.0) is None
    assert series.area(20.0, 30.0) is None


rising = st.lists(st.floats(0.01, 10.0), min_size=2, max_size=30).map(lambda steps: np.cumsum(steps).tolist())


@given(rising, st.data())
def test_rises_of_neighbouring_intervals_add_up(times_s: list[float], data: st.DataObject) -> None:
    counts = np.cumsum(data.draw(st.lists(st.integers(0, 1000), min_size=len(times_s), max_size=len(times_s))))
    series = Series.of(times_s, [float(count) for count in counts])
    middle_s = data.draw(st.floats(times_s[0], times_s[-1], exclude_min=True, exclude_max=True))
    first, second = series.rise(-INFINITY, middle_s), series.rise(middle_s, INFINITY)
    assert first is not None
    assert second is not None
    assert first + second == pytest.approx(float(counts[-1] - counts[0]))


@given(rising, st.data())
def test_mean_lies_between_least_and_peak(times_s: list[float], data: st.DataObject) -> None:
    values = data.draw(st.lists(st.floats(0, 1e6), min_size=len(times_s), max_size=len(times_s)))
    series = Series.of(times_s, values)
    mean, peak = series.mean(-INFINITY, INFINITY), series.peak(-INFINITY, INFINITY)
    assert mean is not None
    assert peak == max(values)
    assert min(values) - 1e-6 <= mean <= peak + 1e-6
