"""Differences and ratios of two figures that were estimated independently, from the intervals of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from setpoint.statistics.samples import Interval
from setpoint.statistics.student import student_quantile

SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its interval; either is ``None`` where the sample cannot say. Ends may be infinite."""

    value: float | None
    interval: Interval | None


def difference(a: Estimate, b: Estimate) -> Estimate:
    """b - a with an interval of the confidence that both intervals have.

    The distances of each estimate from the end that matters are added as squares (Zou and Donner, Statistics in Medicine
    27, 2008), so the interval is as lopsided as the two are and right where they are; nothing is assumed of the
    distribution. Where a value is unknown or infinite the ends themselves are subtracted, which is wider.
    """
    value = None if a.value is None or b.value is None else _known(b.value - a.value)
    if a.interval is None or b.interval is None:
        return Estimate(value, None)
    if value is None or not math.isfinite(value) or a.value is None or b.value is None:
        low, high = b.interval[0] - a.interval[1], b.interval[1] - a.interval[0]
        return Estimate(value, _bounded(-math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high))
    below = math.hypot(b.value - b.interval[0], a.interval[1] - a.value)
    above = math.hypot(b.interval[1] - b.value, a.value - a.interval[0])
    return Estimate(value, _bounded(value - below, value + above))


def ratio(a: Estimate, b: Estimate) -> Estimate:
    """b / a of two figures that cannot be negative, by ``difference`` of their logarithms.

    No value where ``a`` is zero; an end that would divide by zero is infinite.
    """
    logs = difference(_log(a), _log(b))
    defined = a.value is not None and b.value is not None and a.value > 0.0
    value = _known(b.value / a.value) if defined and a.value is not None and b.value is not None else None
    if logs.interval is None:
        return Estimate(value, None)
    low, high = (_exp(end) for end in logs.interval)
    return Estimate(value, None if low == 0.0 and high == math.inf else (low, high))


def mean_of_rounds(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Student's interval of the mean of independent rounds, each worth one value; no interval below two rounds.

    Nor is there one where all rounds give the same value and it is not zero: counts and clocks are coarse, so that does not say
    how far the next round would be off.
    """
    n = len(values)
    if n == 0 or not all(map(math.isfinite, values)):
        return Estimate(None, None)
    mean = math.fsum(values) / n
    if n < 2:
        return Estimate(mean, None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    if mean and math.sqrt(variance) <= SAME * abs(mean):
        return Estimate(mean, None)
    half = student_quantile(0.5 + confidence / 2.0, n - 1.0) * math.sqrt(variance / n)
    return Estimate(mean, (mean - half, mean + half))


def _log(estimate: Estimate) -> Estimate:
    value = None if estimate.value is None or estimate.value <= 0.0 else math.log(estimate.value)
    if estimate.interval is None:
        return Estimate(value, None)
    low, high = (math.log(end) if end > 0.0 else -math.inf for end in estimate.interval)
    return Estimate(value, (low, high))


def _exp(end: float) -> float:
    try:
        return math.exp(end)
    except OverflowError:
        return math.inf


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _bounded(low: float, high: float) -> Interval | None:
    return None if low == -math.inf and high == math.inf else (low, high)
