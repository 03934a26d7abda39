"""How many tokens prompts and outputs have: draws from the distributions of a requirement."""

from __future__ import annotations

import math
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from setpoint.requirement import (
    ChoiceTokens,
    ConstantTokens,
    LognormalTokens,
    TokenDistribution,
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


def _draw_lognormal(distribution: LognormalTokens, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    sigma = math.log(distribution.p95 / distribution.median) / NORMAL_Q95
    exponents = math.log(distribution.median) + sigma * rng.standard_normal(size)
    # Clip before the exponential, so that no draw overflows, and after it, because rounding may cross a bound.
    tokens = np.exp(np.clip(exponents, math.log(distribution.min), math.log(distribution.max)))
    return np.clip(np.rint(tokens).astype(np.int64), distribution.min, distribution.max)
