"""What is fitted to observations draws what was observed: quantiles and mean of lengths, variation and peaks of arrivals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.requirement import Arrival, ArrivalProcess, ChoiceTokens, ConstantTokens, LognormalTokens, UniformTokens
from setpoint.workload import draw_tokens, mean_tokens, offsets_of
from setpoint.workload.fits import fit_arrivals, fit_tokens


@settings(max_examples=40)
@given(median=st.floats(5, 5000), ratio=st.floats(1.5, 8), seed=st.integers(0, 2**32))
def test_log_normals_are_recognised(median: float, ratio: float, seed: int) -> None:
    truth = LognormalTokens(median=median, p95=median * ratio, max=1_000_000)
    tokens = draw_tokens(truth, 4000, np.random.default_rng(seed))
    fit = fit_tokens(tokens)
    assert isinstance(fit.distribution, LognormalTokens)
    assert fit.distribution.median == pytest.approx(median, rel=0.15, abs=1)
    assert fit.distribution.p95 == pytest.approx(median * ratio, rel=0.3, abs=1)
    assert fit.distance < 0.06


@settings(max_examples=40)
@given(
    values=st.lists(st.integers(1, 100_000), min_size=13, max_size=60, unique=True),
    weights=st.lists(st.floats(0.1, 10), min_size=60, max_size=60),
)
def test_whatever_is_fitted_has_the_mean_of_what_was_seen(values: list[int], weights: list[float]) -> None:
    tokens, shares = np.array(values), np.array(weights[: len(values)])
    fit = fit_tokens(tokens, shares)
    assert fit.mean == pytest.approx(float(np.average(tokens, weights=shares)))
    error = 0.01 if isinstance(fit.distribution, ChoiceTokens) else 0.11
    assert mean_tokens(fit.distribution) == pytest.approx(fit.mean, rel=error, abs=1)
    assert min(values) <= fit.distribution.smallest
    assert fit.distribution.largest <= max(values)


def test_few_values_are_kept_as_they_are() -> None:
    fit = fit_tokens(np.array([128, 512, 128, 128]))
    assert fit.distribution == ChoiceTokens(values=(128, 512), weights=(0.75, 0.25))
    assert fit_tokens(np.array([64] * 9)).distribution == ConstantTokens(value=64)


def test_two_humps_are_no_log_normal() -> None:
    rng = np.random.default_rng(1)
    tokens = np.concatenate([rng.integers(90, 110, 5000), rng.integers(3900, 4100, 5000)])
    fit = fit_tokens(tokens)
    assert isinstance(fit.distribution, ChoiceTokens)
    drawn = draw_tokens(fit.distribution, 50_000, rng)
    for percent in (5, 25, 45, 55, 75, 95):
        assert np.percentile(drawn, percent) == pytest.approx(np.percentile(tokens, percent), rel=0.06)


@pytest.mark.parametrize(
    "distribution",
    [
        UniformTokens(min=3, max=90),
        LognormalTokens(median=120, p95=400, max=2000),
        LognormalTokens(median=120, p95=400, min=100, max=420),
        LognormalTokens(median=120, p95=120, max=420),
        ChoiceTokens(values=(1, 10), weights=(3, 1)),
        ConstantTokens(value=7),
    ],
)
def test_means_are_those_of_draws(distribution: UniformTokens) -> None:
    drawn = draw_tokens(distribution, 200_000, np.random.default_rng(2))
    assert mean_tokens(distribution) == pytest.approx(float(drawn.mean()), rel=0.01)


@pytest.mark.parametrize(("cv", "bursty"), [(1.0, False), (0.3, False), (6.0, True)])
def test_rate_and_variation_of_arrivals(cv: float, bursty: bool) -> None:
    arrival = Arrival(process=ArrivalProcess.GAMMA, rate_rps=5.0, cv=cv)
    times_s = offsets_of(arrival, 4000.0, np.random.default_rng(3))
    fit = fit_arrivals(times_s, 4000.0)
    assert fit.rate_rps == pytest.approx(5.0, rel=0.2)
    assert fit.cv == pytest.approx(cv, rel=0.1)
    assert fit.dispersion == pytest.approx(cv**2, rel=0.45)
    assert fit.bursty == bursty


def test_a_burst_is_more_than_chance() -> None:
    rng = np.random.default_rng(4)
    calm = offsets_of(Arrival(rate_rps=2.0), 600.0, rng)
    burst = 300.0 + offsets_of(Arrival(rate_rps=12.0), 10.0, rng)
    fit = fit_arrivals(np.sort(np.concatenate([calm, burst])), 600.0)
    assert fit.bursty
    assert fit.peak_rps == pytest.approx(14.0, rel=0.25)
    assert not fit_arrivals(calm, 600.0).bursty


def test_rounded_times_show() -> None:
    times_s = np.floor(offsets_of(Arrival(rate_rps=5.0), 600.0, np.random.default_rng(5)))
    assert fit_arrivals(times_s, 600.0).simultaneous > 0.5
    assert fit_arrivals(np.zeros(5), 1.0).cv == 0.0
