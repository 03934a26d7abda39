"""Rising series and beginnings unlike the rest: found where they are, seldom where they are not."""

from __future__ import annotations

import numpy as np
from statistics_processes import PROCESSES, autoregressive

from setpoint.statistics import batch_means, rising_trend, transient_length


def p_value(series: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    means = batch_means(series)
    assert means is not None
    return rising_trend(means).p_value


def test_a_series_that_only_wanders_is_seldom_taken_for_a_rise() -> None:
    found = [p_value(each) < 0.01 for each in autoregressive(np.random.default_rng(1), 400, 800, 0.9)]
    assert sum(found) <= 14


def test_a_rise_through_noise_is_found_with_its_size() -> None:
    noise = autoregressive(np.random.default_rng(2), 50, 800, 0.9)
    means = [batch_means(each + np.linspace(0.0, 10.0, 800)) for each in noise]
    trends = [rising_trend(each) for each in means if each is not None]
    assert sum(trend.p_value < 0.001 for trend in trends) >= 48
    assert abs(np.mean([trend.rise for trend in trends]) - 10.0) < 0.3


def test_a_level_series_and_a_short_one() -> None:
    assert batch_means(np.arange(39.0)) is None
    assert rising_trend(np.ones(8)).p_value == 1.0
    assert rising_trend(np.arange(8.0)).p_value == 0.0


def test_a_slow_start_is_cut_where_it_ends() -> None:
    series = PROCESSES["lognormal"].draw(np.random.default_rng(3), 50, 400) ** 0.5
    series[:, :40] *= 3.0
    cuts = [transient_length(each) for each in series]
    assert sum(35 <= cut <= 60 for cut in cuts) >= 38


def test_a_steady_series_seldom_has_a_transient() -> None:
    series = PROCESSES["M/M/1 sojourn 0.5"].draw(np.random.default_rng(4), 200, 600)
    assert sum(transient_length(each) > 0 for each in series) <= 24
    assert transient_length(np.ones(39)) == 0
    assert transient_length(np.full(100, np.inf)) == 0
