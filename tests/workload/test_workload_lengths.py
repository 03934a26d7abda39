"""Token counts keep their bounds and have the distribution the requirement states."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.requirement import (
    ChoiceTokens,
    ConstantSeconds,
    ConstantTokens,
    DurationDistribution,
    LognormalSeconds,
    LognormalTokens,
    TokenDistribution,
    UniformSeconds,
    UniformTokens,
)
from setpoint.workload import draw_seconds, draw_tokens
from setpoint.workload.lengths import mean_seconds

COUNTS = st.integers(min_value=1, max_value=1_000_000)


@st.composite
def uniforms(draw: st.DrawFn) -> UniformTokens:
    low, high = sorted((draw(COUNTS), draw(COUNTS)))
    return UniformTokens(min=low, max=high)


@st.composite
def lognormals(draw: st.DrawFn) -> LognormalTokens:
    low, median, p95, high = sorted(draw(st.tuples(COUNTS, COUNTS, COUNTS, COUNTS)))
    return LognormalTokens(median=median, p95=p95, min=low, max=high)


@st.composite
def choices(draw: st.DrawFn) -> ChoiceTokens:
    values = draw(st.lists(COUNTS, min_size=1, max_size=6))
    weights = draw(st.lists(st.floats(0, 1e6), min_size=len(values), max_size=len(values)))
    return ChoiceTokens(values=tuple(values), weights=tuple(weights) if sum(weights) > 0 else None)


DISTRIBUTIONS = st.one_of(COUNTS.map(lambda count: ConstantTokens(value=count)), uniforms(), lognormals(), choices())


@given(distribution=DISTRIBUTIONS, size=st.integers(0, 200), seed=st.integers(0, 2**32))
def test_draws_keep_their_bounds(distribution: TokenDistribution, size: int, seed: int) -> None:
    tokens = draw_tokens(distribution, size, np.random.default_rng(seed))
    assert tokens.shape == (size,)
    assert tokens.dtype == np.int64
    assert ((distribution.smallest <= tokens) & (tokens <= distribution.largest)).all()
    assert (tokens == draw_tokens(distribution, size, np.random.default_rng(seed))).all()


def test_lognormal_has_the_stated_median_and_p95() -> None:
    distribution = LognormalTokens(median=120, p95=400, max=2000)
    tokens = draw_tokens(distribution, 200_000, np.random.default_rng(1))
    assert np.median(tokens) == pytest.approx(120, rel=0.02)
    assert np.percentile(tokens, 95) == pytest.approx(400, rel=0.02)


def test_clipping_leaves_median_and_p95_alone() -> None:
    tokens = draw_tokens(LognormalTokens(median=120, p95=400, min=100, max=420), 200_000, np.random.default_rng(2))
    assert np.median(tokens) == pytest.approx(120, rel=0.02)
    assert np.percentile(tokens, 95) == pytest.approx(400, rel=0.02)


def test_uniform_reaches_both_ends_alike() -> None:
    tokens = draw_tokens(UniformTokens(min=3, max=6), 40_000, np.random.default_rng(3))
    assert np.bincount(tokens, minlength=7)[3:] == pytest.approx([10_000] * 4, rel=0.05)


def test_choice_follows_its_weights() -> None:
    tokens = draw_tokens(ChoiceTokens(values=(1, 2, 4), weights=(6, 3, 1)), 40_000, np.random.default_rng(4))
    assert np.bincount(tokens, minlength=5)[[1, 2, 4]] == pytest.approx([24_000, 12_000, 4_000], rel=0.05)


@given(
    st.one_of(
        st.builds(ConstantSeconds, value_s=st.floats(0, 100)),
        st.floats(0, 50).map(lambda low: UniformSeconds(min_s=low, max_s=2 * low + 1)),
        st.builds(
            lambda median, factor, least, most: LognormalSeconds(
                median_s=median, p95_s=median * factor, min_s=median * least, max_s=median * factor * most
            ),
            st.floats(0.1, 30),
            st.floats(1.01, 4),
            st.floats(0, 1),
            st.floats(1, 5),
        ),
    )
)
def test_the_mean_of_think_times_is_that_of_their_draws(distribution: DurationDistribution) -> None:
    drawn = draw_seconds(distribution, 20_000, np.random.default_rng(5))
    # A fixed seed; the least exact of these distributions has a standard error of 1 % of its mean.
    assert mean_seconds(distribution) == pytest.approx(float(drawn.mean()), rel=0.06, abs=1e-9)
