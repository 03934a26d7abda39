"""Confidence intervals that hold for dependent samples, or are refused."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from setpoint.statistics.binomial import count_at
from setpoint.statistics.dependence import Dependence, dependence, tail_dependence
from setpoint.statistics.effective import INTERVAL_RULES, EffectiveSizes, effective_sizes, student_stretch
from setpoint.statistics.samples import FloatArray, Interval, above_all, as_sample, check_percentile
from setpoint.statistics.student import student_quantile


def percentile_effective_n(samples: npt.ArrayLike, p: float, censored: npt.ArrayLike | None = None) -> float:
    """The effective sample size for the ``p``-th percentile of a dependent sample in arrival order (``tail_dependence``)."""
    check_percentile(p)
    values, mask = as_sample(samples, censored)
    if not len(values):
        return 0.0
    return len(values) / _percentile_dependence(above_all(values, mask), p).inefficiency


def percentile_interval(
    samples: npt.ArrayLike,
    p: float,
    confidence: float = 0.95,
    effective_n: float | None = None,
    censored: npt.ArrayLike | None = None,
    *,
    transient: bool = False,
) -> Interval | None:
    """An interval of the ``p``-th percentile by order statistics, free of any assumption on the distribution.

    The number of values below the percentile is binomial(n, p); the ends are the order statistics outside of which the
    percentile lies with probability (1 - confidence) / 2 each (Hahn and Meeker, Statistical Intervals, section 5.2),
    interpolated between ranks (Hutson, J. Applied Statistics 26, 1999). With dependent values, in arrival order, the
    binomial is taken of the effective sizes (``effective_sizes``) and its ranks are stretched to n; ``effective_n`` states
    the size instead, as known. ``transient``: see ``dependence``. The lower end takes censored values at their bounds, the
    upper end takes them as infinite.

    An end that the sample is too small or too dependent to bound is infinite (P99 takes 550 independent values to have two
    ends, P90 55, P50 11); ``None`` if neither end can be had.
    """
    check_percentile(p)
    values, mask = as_sample(samples, censored)
    if not len(values):
        return None
    ranked = above_all(values, mask)
    if p < 50.0:
        sizes = _sizes(-ranked, 100.0 - p, confidence, effective_n, transient)
        mirrored = _ends(-ranked, -values, sizes, 100.0 - p, confidence)
        low, high = -mirrored[1], -mirrored[0]
    else:
        low, high = _ends(values, ranked, _sizes(ranked, p, confidence, effective_n, transient), p, confidence)
    return None if low == -math.inf and high == math.inf else (low, high)


def _sizes(ranked: FloatArray, p: float, confidence: float, effective_n: float | None, transient: bool) -> EffectiveSizes:
    beyond = 1.0 - p / 100.0
    if effective_n is None:
        found = tail_dependence(ranked, len(ranked) * beyond, transient=transient)
        return effective_sizes(len(ranked), beyond, found, confidence)
    known = max(1.0, min(effective_n, float(len(ranked))))
    return EffectiveSizes(known, known if known * beyond >= INTERVAL_RULES.least_beyond - 1e-9 else None)


def _ends(low_of: FloatArray, high_of: FloatArray, sizes: EffectiveSizes, p: float, confidence: float) -> Interval:
    """The ends, each from the values that it is to be taken of; infinite where there is none."""
    n, q, z = len(low_of), p / 100.0, NormalDist().inv_cdf(0.5 + confidence / 2.0)
    low_rank, high_rank = _rank(n, sizes.low, q, -z), _rank(n, sizes.high, q, z)
    low = -math.inf if low_rank is None else order_statistic(low_of, low_rank, toward=-1)
    return low, math.inf if high_rank is None else order_statistic(high_of, high_rank, toward=1)


def _rank(n: int, size: float | None, q: float, z: float) -> float | None:
    """The 1-based rank among ``n`` values, not whole, of the end at ``z``; ``None`` if there is no such value."""
    count = None if size is None else count_at(z, size, q)
    return None if count is None or size is None else (count + 1.0) * (n + 1.0) / (size + 1.0)


def order_statistic(values: FloatArray, rank: float, *, toward: int) -> float:
    """The value at a 1-based rank that need not be whole, straight between its neighbours.

    Where one neighbour is infinite there is nothing in between: the lower one is meant for ``toward`` -1, else the upper.
    """
    n = len(values)
    below = min(max(int(rank), 1), n)
    above = min(below + 1, n)
    pair = np.partition(values, (below - 1, above - 1))[[below - 1, above - 1]]
    low, high, part = float(pair[0]), float(pair[1]), min(max(rank - below, 0.0), 1.0)
    if part < 1e-9 or low == high:
        return low
    if math.isinf(low) or math.isinf(high):
        return low if toward < 0 else high
    return low + part * (high - low)


def _percentile_dependence(ranked: FloatArray, p: float) -> Dependence:
    """``tail_dependence`` on the side of the percentile where the fewer values are."""
    share = p / 100.0
    return (
        tail_dependence(ranked, len(ranked) * (1.0 - share)) if share >= 0.5 else tail_dependence(-ranked, len(ranked) * share)
    )


def mean_interval(samples: npt.ArrayLike, confidence: float = 0.95, effective_n: float | None = None) -> Interval | None:
    """Student's interval of the mean, sample in arrival order; ``None`` if not finite or below 3 effective values."""
    values, _ = as_sample(samples, None)
    if len(values) < 3 or not np.isfinite(values).all():
        return None
    found = dependence(values) if effective_n is None else Dependence(max(1.0, len(values) / effective_n), math.inf)
    n = len(values) / found.inefficiency
    if n < 3:
        return None
    degrees = min(n - 1.0, found.degrees / found.share if found.share > 0.0 else math.inf)
    half = student_quantile(0.5 + confidence / 2.0, degrees) * float(values.std(ddof=1)) / math.sqrt(n)
    mean = float(values.mean())
    return mean - half, mean + half


def proportion_interval(successes: int, n: int, confidence: float = 0.95, effective_n: float | None = None) -> Interval | None:
    """Wilson's score interval of a proportion (Wilson, JASA 22, 1927); ``None`` for n = 0.

    With dependent trials ``effective_n`` (see ``effective_sample_size``) stands in for n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be between 0 and n={n}, found {successes}")
    if n == 0:
        return None
    share, size = successes / n, float(n) if effective_n is None else min(max(effective_n, 1.0), float(n))
    z2 = NormalDist().inv_cdf(0.5 + confidence / 2.0) ** 2
    centre = (share + z2 / (2.0 * size)) / (1.0 + z2 / size)
    half = math.sqrt(z2 * (share * (1.0 - share) / size + z2 / (4.0 * size * size))) / (1.0 + z2 / size)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def share_interval(
    hits: npt.ArrayLike,
    confidence: float = 0.95,
    severity: npt.ArrayLike | None = None,
    *,
    transient: bool = False,
) -> Interval | None:
    """Wilson's interval of the share of ``hits`` (a mask in arrival order), dependence considered; ``None`` without any.

    ``severity``: what the hits are the complement of the largest of, if there is such a thing (good requests: by how much a
    request missed); it tells more of the dependence than few misses do. ``transient``: see ``dependence``.
    """
    mask = np.asarray(hits, dtype=np.bool_)
    n, count = len(mask), int(np.count_nonzero(mask))
    if n == 0:
        return None
    found = dependence(mask, transient=transient)
    if severity is not None:
        worst = np.asarray(severity, dtype=np.float64)
        found = found.worse(tail_dependence(worst, float(max(1, n - count)), transient=transient))
    degrees = max(2.0, found.degrees / found.share) if found.share > 0.0 else math.inf
    size = n / found.inefficiency / student_stretch(confidence, degrees) ** 2
    return proportion_interval(count, n, confidence, size)
