"""Draws from the distributions of a requirement: how many tokens, how many turns, how long a person thinks."""

from __future__ import annotations

import math
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

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

NORMAL_Q95 = 1.6448536269514722
"""95th percentile of the standard normal distribution."""


def draw_tokens(distribution: TokenDistribution, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``size`` token counts, shape ``[size]``, each within ``[distribution.smallest, distribution.largest]``.

    A log-normal has ``mu = ln(median)`` and ``sigma = ln(p95 / median) / 1.645``; draws outside ``[min, max]`` become
    ``min`` or ``max``, so that median and P95 stay what the requirement says.
    """
    if isinstance(distribution, ConstantTokens):
        return np.full(size, distribution.value, dtype=np.int64)
    if isinstance(distribution, UniformTokens):
        return rng.integers(distribution.min, distribution.max, size=size, endpoint=True, dtype=np.int64)
    if isinstance(distribution, LognormalTokens):
        return _draw_lognormal(distribution, size, rng)
    if isinstance(distribution, ChoiceTokens):
        values = np.array(distribution.values, dtype=np.int64)
        weights = None if distribution.weights is None else np.array(distribution.weights) / sum(distribution.weights)
        return rng.choice(values, size=size, p=weights)
    assert_never(distribution)


def mean_tokens(distribution: TokenDistribution) -> float:
    """The mean of the draws; for a log-normal that of the clipped variable, before rounding to whole numbers."""
    if isinstance(distribution, ConstantTokens):
        return float(distribution.value)
    if isinstance(distribution, UniformTokens):
        return (distribution.min + distribution.max) / 2
    if isinstance(distribution, LognormalTokens):
        return _clipped_lognormal_mean(distribution.median, distribution.p95, float(distribution.min), float(distribution.max))
    if isinstance(distribution, ChoiceTokens):
        return float(np.average(distribution.values, weights=distribution.weights))
    assert_never(distribution)


def draw_seconds(distribution: DurationDistribution, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """``size`` durations in seconds, shape ``[size]``; a log-normal is clipped as that of tokens is."""
    if isinstance(distribution, ConstantSeconds):
        return np.full(size, distribution.value_s)
    if isinstance(distribution, UniformSeconds):
        return rng.uniform(distribution.min_s, distribution.max_s, size=size)
    if isinstance(distribution, LognormalSeconds):
        sigma = math.log(distribution.p95_s / distribution.median_s) / NORMAL_Q95
        with np.errstate(over="ignore"):
            draws = np.exp(math.log(distribution.median_s) + sigma * rng.standard_normal(size))
        return np.clip(draws, distribution.min_s, distribution.max_s)
    assert_never(distribution)


def mean_seconds(distribution: DurationDistribution) -> float:
    """The mean of the draws."""
    if isinstance(distribution, ConstantSeconds):
        return distribution.value_s
    if isinstance(distribution, UniformSeconds):
        return (distribution.min_s + distribution.max_s) / 2
    if isinstance(distribution, LognormalSeconds):
        return _clipped_lognormal_mean(distribution.median_s, distribution.p95_s, distribution.min_s, distribution.max_s)
    assert_never(distribution)


def _clipped_lognormal_mean(median: float, p95: float, low: float, high: float) -> float:
    """``E[min(max(X, low), high)]`` of a log-normal X."""
    mu, sigma = math.log(median), math.log(p95 / median) / NORMAL_Q95
    if sigma < 1e-9:
        return min(max(median, low), high)
    alpha = (math.log(low) - mu) / sigma if low > 0 else -math.inf
    beta = (math.log(high) - mu) / sigma
    below, above = normal_cdf(alpha), 1 - normal_cdf(beta)
    share = normal_cdf(beta - sigma) - normal_cdf(alpha - sigma)
    inside = math.exp(mu + sigma**2 / 2) * share if share > 0 else 0.0
    return min(max(low * below + inside + high * above, low), high)


def normal_cdf(value: float) -> float:
    """The distribution function of the standard normal distribution."""
    return 0.5 * math.erfc(-value / math.sqrt(2))


def _draw_lognormal(distribution: LognormalTokens, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    sigma = math.log(distribution.p95 / distribution.median) / NORMAL_Q95
    exponents = math.log(distribution.median) + sigma * rng.standard_normal(size)
    # Clip before the exponential, so that no draw overflows, and after it, because rounding may cross a bound.
    tokens = np.exp(np.clip(exponents, math.log(distribution.min), math.log(distribution.max)))
    return np.clip(np.rint(tokens).astype(np.int64), distribution.min, distribution.max)
