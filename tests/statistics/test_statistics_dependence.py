"""How many independent values a series counts as."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statistics_processes import PROCESSES, autoregressive

from setpoint.statistics import (
    dependence,
    effective_sample_size,
    percentile_effective_n,
    percentile_interval,
    tail_dependence,
)

values = st.floats(min_value=0.0, max_value=1e6, allow_nan=False)


@pytest.mark.parametrize(("phi", "expected"), [(0.0, 1.0), (0.5, 1 / 3), (0.8, 1 / 9)])
def test_effective_sample_size_of_an_autoregressive_series(phi: float, expected: float) -> None:
    series = autoregressive(np.random.default_rng(1), 20, 2000, phi)
    assert np.mean([effective_sample_size(each) / 2000 for each in series]) == pytest.approx(expected, rel=0.15)


@given(st.lists(st.one_of(values, st.just(0.0)), max_size=100), st.booleans())
def test_effective_sample_size_is_between_one_and_n(sample: list[float], transient: bool) -> None:
    assert min(1, len(sample)) <= effective_sample_size(sample) <= len(sample)
    found = dependence(sample, transient=transient)
    assert found.inefficiency >= 1.0
    assert found.degrees > 0.0
    assert 0.0 <= found.share < 1.0


@pytest.mark.parametrize(
    ("name", "p", "true"),
    [("AR(1) 0.9", 50.0, 14.0), ("AR(1) 0.9", 90.0, 10.0), ("M/M/1 sojourn 0.5", 90.0, 7.0), ("M/M/1 sojourn 0.7", 90.0, 24.0)],
)
def test_the_dependence_of_a_percentile_is_found_and_rather_over_than_underestimated(name: str, p: float, true: float) -> None:
    """``true``: n times the variance of the share beyond the true percentile over p (1 - p), from 2000 long runs."""
    series = PROCESSES[name].draw(np.random.default_rng(2), 20, 10_000)
    found = np.mean([10_000 / percentile_effective_n(each, p) for each in series])
    assert 0.85 * true < found < 1.5 * true


def test_clustered_lateness_leaves_less_information_than_scattered_lateness() -> None:
    clustered = np.array([1.0] * 900 + [9.0] * 100)
    scattered = np.tile([1.0] * 9 + [9.0], 100)
    assert percentile_effective_n(clustered, 90.0) < 50 < percentile_effective_n(scattered, 90.0)
    assert percentile_effective_n(-clustered, 10.0) == percentile_effective_n(clustered, 90.0)


def test_the_course_of_a_burst_is_not_taken_for_dependence() -> None:
    rng = np.random.default_rng(3)
    burst = np.linspace(0.1, 4.0, 200) + 0.3 * rng.standard_normal(200)
    assert tail_dependence(burst, 20.0).inefficiency > 10.0
    assert tail_dependence(burst, 20.0, transient=True).inefficiency < 2.0


def test_long_series_are_quick_and_alike() -> None:
    series = autoregressive(np.random.default_rng(4), 1, 100_000, 0.9)[0]
    assert effective_sample_size(series) == pytest.approx(effective_sample_size(series[:8000]) * 12.5, rel=0.3)
    started_s = time.perf_counter()
    assert percentile_interval(series, 99.0) is not None
    assert time.perf_counter() - started_s < 0.5, "an interval of 100,000 gaps takes about 10 ms"
