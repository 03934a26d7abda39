"""Tails of the binomial distribution for counts and sizes that need not be whole: those of effective samples."""

from __future__ import annotations

import math
from statistics import NormalDist

_BISECTIONS = 48


def normal_score(k: float, n: float, q: float) -> float:
    """The z at which the normal distribution has the probability P(B <= k) of B ~ binomial(n, q); n > 1, 0 <= k <= n - 1.

    Peizer and Pratt's approximation (JASA 63, 1968): wrong by less than 0.001 in probability, and smooth in k and n, so that
    it serves between whole numbers.
    """
    rest = 1.0 - q
    above = (q - 0.5) / (n + 1.0)
    deviation = k + 2.0 / 3.0 - (n + 1.0 / 3.0) * q + 0.02 * (rest / (k + 1.0) - q / (n - k) + above)
    curvature = 1.0 + rest * _bend((k + 0.5) / (n * q)) + q * _bend((n - k - 0.5) / (n * rest))
    return deviation * math.sqrt(curvature / ((n + 1.0 / 6.0) * q * rest))


def probability_up_to(k: float, n: float, q: float) -> float:
    """P(B <= k) of B ~ binomial(n, q), n > 0: by ``normal_score``, exact at 0 and n - 1, and straight beyond those."""
    none, all_but_one = math.pow(1.0 - q, n), 1.0 - math.pow(q, n)
    if k <= 0.0:
        return max(0.0, 1.0 + k) * none
    if k >= n:
        return 1.0
    if k > n - 1.0:
        start, begin = (n - 1.0, all_but_one) if n > 1.0 else (0.0, none)
        return begin + (k - start) / (n - start) * (1.0 - begin)
    return NormalDist().cdf(normal_score(k, n, q))


def count_at(z: float, n: float, q: float) -> float | None:
    """The k with ``normal_score(k, n, q) == z`` within 0 .. n - 1; ``None`` where there is none."""
    if n <= 1.5 or not normal_score(0.0, n, q) <= z <= normal_score(n - 1.0, n, q):
        return None
    low, high = 0.0, n - 1.0
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if normal_score(middle, n, q) < z else (low, middle)
    return 0.5 * (low + high)


def _bend(x: float) -> float:
    """(1 - x^2 + 2 x ln x) / (1 - x)^2, continuous at 1."""
    if abs(1.0 - x) < 1e-4:
        return (1.0 - x) / 3.0
    return (1.0 - x * x + 2.0 * x * math.log(x)) / (1.0 - x) ** 2
