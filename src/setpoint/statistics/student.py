"""Quantiles of Student's t distribution."""

from __future__ import annotations

import math
from statistics import NormalDist


def student_quantile(level: float, degrees: float) -> float:
    """Student's t quantile: exact for 1 and 2 degrees, else by expansion in 1 / degrees (Abramowitz and Stegun 26.7.5),
    within 0.5 % up to the 99.5 % level from 3 degrees on. Infinite degrees are the normal distribution."""
    if degrees < 2.0:
        return math.tan(math.pi * (level - 0.5))
    if degrees < 3.0:
        twice = 2.0 * level - 1.0
        return twice * math.sqrt(2.0 / (1.0 - twice * twice))
    z = NormalDist().inv_cdf(level)
    if math.isinf(degrees):
        return z
    terms = (
        (z**3 + z) / 4.0,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96.0,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384.0,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160.0,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))


def student_probability_above(t: float, degrees: int) -> float:
    """P(T > t) of Student's t with an even number of degrees of freedom, exactly (Abramowitz and Stegun 26.7.4)."""
    if degrees < 2 or degrees % 2:
        raise ValueError(f"degrees must be even and at least 2, found {degrees}")
    angle = math.atan(t / math.sqrt(degrees))
    term = total = 1.0
    for k in range(1, degrees // 2):
        term *= (2 * k - 1) / (2 * k) * math.cos(angle) ** 2
        total += term
    return 0.5 * (1.0 - math.sin(angle) * total)
