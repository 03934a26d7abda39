"""That intervals cover and verdicts are right as often as they say, over dependent series with a known truth.

A few hundred runs of what ``benchmarks/statistics/coverage.py`` does over the whole grid. Where the tool refuses an interval in
most runs nothing is asked of the others, except that wrong intervals stay rare among all runs.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from statistics_processes import PROCESSES

from setpoint.statistics import FloatArray, Side, percentile_interval, side_of_limit

RUNS = 250
# Three standard errors of a coverage of 93 % and of a rate of 2.5 % over the runs.
NOISE, RARE_NOISE = 0.048, 0.03
USUAL = [
    ("lognormal", 800, 99.0),
    ("lognormal", 1000, 50.0),
    ("exponential", 1000, 99.0),
    ("bimodal 0.1", 1000, 90.0),
    ("AR(1) 0.5", 1000, 90.0),
    ("AR(1) 0.9", 3000, 50.0),
    ("AR(1) 0.95", 10_000, 90.0),
    ("MA(20)", 5000, 90.0),
    ("M/M/1 sojourn 0.5", 3000, 90.0),
    ("M/M/1 wait 0.7", 6000, 90.0),
    ("M/D/1 wait 0.7", 3000, 50.0),
    ("episodes", 6000, 90.0),
    ("gaps shared by 8", 10_000, 90.0),
]
REFUSED = [
    ("lognormal", 300, 99.0),
    ("AR(1) 0.95", 500, 90.0),
    ("M/M/1 sojourn 0.7", 1000, 99.0),
    ("M/M/1 sojourn 0.9", 1000, 90.0),
    ("M/D/1 wait 0.9", 1000, 99.0),
]


def runs_of(name: str, n: int) -> FloatArray:
    return PROCESSES[name].draw(np.random.default_rng((7, n)), RUNS, n)


@pytest.mark.parametrize(("name", "n", "p"), USUAL)
def test_an_interval_covers_and_is_nearly_as_narrow_as_can_be(name: str, n: int, p: float) -> None:
    truth, given, covered, width = PROCESSES[name].truth(p), 0, 0, 0.0
    series = runs_of(name, n)
    for each in series:
        interval = percentile_interval(each, p)
        if interval is not None and all(map(math.isfinite, interval)):
            given, width = given + 1, width + interval[1] - interval[0]
            covered += interval[0] <= truth <= interval[1]
    assert given >= 0.7 * RUNS
    assert covered >= (0.93 - NOISE) * given
    points = np.sort(series, axis=1)[:, math.ceil(n * p / 100.0) - 1]
    assert width / given <= 1.5 * float(np.quantile(points, 0.975) - np.quantile(points, 0.025))


@pytest.mark.parametrize(("name", "n", "p"), REFUSED)
def test_where_no_interval_can_be_had_it_is_refused(name: str, n: int, p: float) -> None:
    truth, given, wrong = PROCESSES[name].truth(p), 0, 0
    for each in runs_of(name, n):
        interval = percentile_interval(each, p)
        if interval is not None and all(map(math.isfinite, interval)):
            given += 1
            wrong += not interval[0] <= truth <= interval[1]
    assert given <= 0.3 * RUNS
    assert wrong <= 0.07 * RUNS


@pytest.mark.parametrize(
    ("name", "n"),
    [
        ("exponential", 400),
        ("bimodal 0.015", 400),
        ("AR(1) 0.8", 400),
        ("AR(1) 0.95", 1000),
        ("M/M/1 sojourn 0.5", 1000),
        ("M/M/1 wait 0.9", 1000),
        ("M/D/1 wait 0.7", 400),
        ("gaps shared by 8", 1000),
    ],
)
@pytest.mark.parametrize("p", [90.0, 99.0])
def test_with_the_percentile_just_at_the_limit_a_verdict_is_seldom_wrong(name: str, n: int, p: float) -> None:
    truth = PROCESSES[name].truth(p)
    sides = [side_of_limit(each, p, truth) for each in runs_of(name, n)]
    assert sides.count(Side.WITHIN) <= (0.025 + RARE_NOISE) * RUNS
    assert sides.count(Side.BEYOND) <= (0.025 + RARE_NOISE) * RUNS
