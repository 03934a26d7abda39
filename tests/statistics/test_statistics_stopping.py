"""Measuring until a percentile is known: when to stop, and that looking again and again does not fool."""

from __future__ import annotations

import numpy as np
import pytest
from statistics_processes import PROCESSES

from setpoint.statistics import StoppingRule, settled


def test_settled_as_soon_as_both_ends_are_near() -> None:
    values = np.random.default_rng(1).uniform(0.9, 1.1, 5000)
    assert settled(values, 99.0, 0.1)
    assert settled(values[:700], 99.0, 0.1)
    assert not settled(values[:200], 99.0, 0.1), "200 values bound no P99"
    assert not settled(np.random.default_rng(2).lognormal(size=1000), 99.0, 0.1)
    assert not settled([], 50.0, 0.1)
    with pytest.raises(ValueError, match="above 0"):
        settled(values, 99.0, 0.0)


def test_the_looks_are_fixed_beforehand_and_bounded() -> None:
    rule = StoppingRule(99.0, 0.1, least_s=10.0, most_s=320.0, looks=6)
    assert rule.looks_s == pytest.approx((10.0, 20.0, 40.0, 80.0, 160.0, 320.0))
    assert rule.look_confidence == pytest.approx(1.0 - 0.05 / 6)
    assert StoppingRule(99.0, 0.1, least_s=30.0, most_s=30.0).looks_s == (30.0,)
    assert StoppingRule(99.0, 0.1, least_s=10.0, most_s=30.0, looks=1).look_confidence == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"p": 100.0}, "percentile"),
        ({"relative_width": 0.0}, "relative_width"),
        ({"least_s": 50.0}, "least_s"),
        ({"most_s": float("inf")}, "most_s"),
        ({"looks": 0}, "looks"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(fields: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        StoppingRule(**({"p": 99.0, "relative_width": 0.1, "least_s": 10.0, "most_s": 40.0} | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["exponential", "AR(1) 0.8", "M/M/1 sojourn 0.5"])
def test_the_interval_at_the_stop_covers_as_often_as_it_says(name: str) -> None:
    """20 values a second, up to 400 s: stopped at the first look at which P90 is known to 15 %."""
    process, rule = PROCESSES[name], StoppingRule(90.0, 0.15, least_s=25.0, most_s=400.0, looks=5)
    truth, missed, stopped = process.truth(90.0), 0, []
    for series in process.draw(np.random.default_rng(3), 150, 8000):
        look_s = next((look_s for look_s in rule.looks_s if rule.settled(series[: int(20 * look_s)])), rule.most_s)
        interval = rule.interval(series[: int(20 * look_s)])
        stopped.append(look_s)
        missed += interval is not None and not interval[0] <= truth <= interval[1]
    assert missed <= 9
    assert min(stopped) < rule.most_s, "no run stopped early: the test shows nothing"
