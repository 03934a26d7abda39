"""Percentiles and intervals for latency samples that are dependent, cut off, or infinitely late. Pure numpy, no I/O.

A sample is a 1-d array of floats in arrival order. ``inf`` is a value like any other: a request that never got an
answer. A value marked in the mask ``censored`` is only a lower bound: a request still running at cut-off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
IntArray: TypeAlias = npt.NDArray[np.int64]
Interval: TypeAlias = tuple[float, float]

SUMMARY_PERCENTILES = (50.0, 90.0, 95.0, 99.0)
_ROUNDING = 1e-9
_BOOTSTRAP_BINS = 4096
_BOOTSTRAP_RESAMPLES_MAX = 2000
_BOOTSTRAP_BLOCKS = (20, 512)


@dataclass(frozen=True, slots=True)
class SampleSummary:
    """A sample in a few figures, in the sample's own unit; ``None`` where the sample cannot say.

    n counts censored values too. mean and max are ``None`` as soon as one value is unknown (censored or infinite):
    the mean and the maximum of the others would flatter. p99_ci is a 95 % interval, ``None`` unless both ends are
    finite.
    """

    n: int
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p99_ci: Interval | None = None
    max: float | None = None


def percentile(samples: npt.ArrayLike, p: float, censored: npt.ArrayLike | None = None) -> float | None:
    """The ``p``-th percentile (0 < p < 100) by nearest rank: the smallest value with p % of the sample up to it.

    Censored values are ranked above all others, so that they can raise a percentile and never lower it. Returns
    ``None`` where the percentile falls among the censored, and where the sample has fewer than 100 / (100 - p) values
    (the percentile would be the maximum under another name). Raises ``ValueError`` on a bad ``p`` or a NaN.
    """
    _check_percentile(p)
    values, mask = _sample(samples, censored)
    if len(values) < 100.0 / (100.0 - p) - _ROUNDING:
        return None
    known = np.sort(values[~mask])
    rank = _nearest_rank(len(values), p)
    return float(known[rank - 1]) if rank <= len(known) else None


def effective_sample_size(series: npt.ArrayLike) -> float:
    """How many independent values carry as much information on the mean as this series, between 1 and its length.

    n / (1 + 2 * sum of the autocorrelations), the sum cut by Geyer's initial positive sequence: autocorrelations are
    added in pairs (lags 1 and 2, 3 and 4, ...) until a pair is not positive (Geyer, Practical Markov chain Monte
    Carlo, Statistical Science 7, 1992, section 3.3). Negative correlation is not credited. A constant series
    counts in full.
    """
    x = np.asarray(series, dtype=np.float64)
    n = len(x)
    centred = x - x.mean() if n else x
    if n < 4 or not np.any(np.abs(centred) > _ROUNDING * (1.0 + np.abs(x).max())):
        return float(n)
    spectrum = np.fft.rfft(centred, 1 << (2 * n - 1).bit_length())
    covariance = np.fft.irfft(spectrum * np.conj(spectrum))[:n]
    correlation = covariance[1 : n - (n - 1) % 2] / covariance[0]
    pairs = correlation.reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0.0)
    total = float(pairs[: ends[0]].sum()) if len(ends) else float(pairs.sum())
    return float(np.clip(n / (1.0 + 2.0 * total), 1.0, n))


def percentile_effective_n(samples: npt.ArrayLike, p: float, censored: npt.ArrayLike | None = None) -> float:
    """The effective sample size for the ``p``-th percentile of a dependent sample in arrival order.

    A percentile is as uncertain as the count of values beyond it, so it is the series of indicators "beyond the
    percentile" whose autocorrelation matters, not that of the values, and infinite values are no obstacle. Values that
    differ by less than one part in 10^9 are rounding and count as equal.
    """
    _check_percentile(p)
    values, mask = _sample(samples, censored)
    if len(values) < 4:
        return float(len(values))
    ranked = np.where(mask, np.inf, values)
    rank = _nearest_rank(len(ranked), p)
    threshold = float(np.partition(ranked, rank - 1)[rank - 1])
    margin = _ROUNDING * abs(threshold) if math.isfinite(threshold) else 0.0
    beyond = ranked > threshold + margin
    if not beyond.any():
        beyond = ranked >= threshold - margin
    return effective_sample_size(beyond)


def percentile_interval(
    samples: npt.ArrayLike,
    p: float,
    confidence: float = 0.95,
    effective_n: float | None = None,
    censored: npt.ArrayLike | None = None,
) -> Interval | None:
    """An interval of the ``p``-th percentile by order statistics, free of any assumption on the distribution.

    The number of values below the percentile is binomial(n, p); the ends are the order statistics outside of which the
    percentile lies with probability at most (1 - confidence) / 2 each (Hahn and Meeker, Statistical Intervals, section
    5.2). With dependent values the binomial is taken of the effective sample size (``percentile_effective_n`` unless
    given) and its ranks are stretched to n. The lower end takes censored values at their bounds, the upper end takes
    them as infinite. An end the sample is too small to bound is infinite (P99 of 100 has no upper end; it takes 368
    independent values); ``None`` if neither end is bounded.
    """
    _check_percentile(p)
    values, mask = _sample(samples, censored)
    n = len(values)
    if n == 0:
        return None
    if effective_n is None:
        effective_n = percentile_effective_n(values, p, mask)
    low_rank, high_rank = _interval_ranks(n, p / 100.0, confidence, effective_n)
    low = float(np.partition(values, low_rank - 1)[low_rank - 1]) if low_rank >= 1 else -math.inf
    ranked = np.where(mask, np.inf, values)
    high = float(np.partition(ranked, high_rank - 1)[high_rank - 1]) if high_rank <= n else math.inf
    return None if low == -math.inf and high == math.inf else (low, high)


def mean_interval(samples: npt.ArrayLike, confidence: float = 0.95, effective_n: float | None = None) -> Interval | None:
    """Student's interval of the mean, sample in arrival order; ``None`` if not finite or below 3 effective values."""
    values, _ = _sample(samples, None)
    if len(values) < 3 or not np.isfinite(values).all():
        return None
    n = min(effective_sample_size(values) if effective_n is None else effective_n, float(len(values)))
    if n < 3:
        return None
    half = _student_quantile(0.5 + confidence / 2.0, n - 1.0) * float(values.std(ddof=1)) / math.sqrt(n)
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


def ratio_interval(
    samples: npt.ArrayLike,
    seed: int,
    upper_p: float = 99.0,
    lower_p: float = 50.0,
    confidence: float = 0.95,
    resamples: int = 400,
    censored: npt.ArrayLike | None = None,
) -> Interval | None:
    """An interval of the ratio of two percentiles of one sample in arrival order, P99 / P50 unless told otherwise.

    Block bootstrap (Carlstein, Annals of Statistics 14, 1986): whole consecutive stretches, several times as long as
    the correlation reaches, are drawn with replacement; the interval spans the middle of the resampled ratios.
    A bootstrap cannot see beyond the largest value, so where the upper percentile has no upper end (fewer than 368
    independent values for P99) or stretches are fewer than 20, the quotient of the two percentiles' own intervals is
    returned: wider, and open above where it must be. Work is bounded: at most 2000 resamples, 512 stretches and 4096
    ranks. ``None`` where nothing can be said.
    """
    values, mask = _sample(samples, censored)
    upper = percentile_interval(values, upper_p, confidence, None, mask)
    lower = percentile_interval(values, lower_p, confidence, None, mask)
    if upper is None or lower is None:
        return None
    quotient = _ratio(upper[0], lower[1], -math.inf), _ratio(upper[1], lower[0], math.inf)
    if quotient == (-math.inf, math.inf):
        return None
    n = len(values)
    effective_n = min(percentile_effective_n(values, q, mask) for q in (upper_p, lower_p))
    stretch = max(round(n ** (1 / 3)), math.ceil(4.0 * n / effective_n), -(-n // _BOOTSTRAP_BLOCKS[1]))
    if mask.any() or not math.isfinite(quotient[1]) or n // stretch < _BOOTSTRAP_BLOCKS[0]:
        return quotient
    drawn = min(max(resamples, 50), _BOOTSTRAP_RESAMPLES_MAX)
    high, low = _bootstrap_percentiles(values, stretch, (upper_p, lower_p), drawn, seed)
    if np.any(low <= 0.0) or np.isinf(low).any():
        return quotient
    ratios = np.sort(high / low)
    tail = (1.0 - confidence) / 2.0
    first, last = math.floor(tail * drawn), math.ceil((1.0 - tail) * drawn) - 1
    return float(ratios[first]), float(ratios[last])


def summarise(samples: npt.ArrayLike, censored: npt.ArrayLike | None = None) -> SampleSummary:
    """Mean, percentiles, interval of P99 and maximum of a sample in arrival order."""
    values, mask = _sample(samples, censored)
    if not len(values):
        return SampleSummary(0)
    complete = not mask.any() and bool(np.isfinite(values).all())
    interval = percentile_interval(values, 99.0, censored=mask)
    p50, p90, p95, p99 = (_finite(percentile(values, p, mask)) for p in SUMMARY_PERCENTILES)
    return SampleSummary(
        n=len(values),
        mean=float(values.mean()) if complete else None,
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        p99_ci=interval if interval is not None and all(map(math.isfinite, interval)) else None,
        max=float(values.max()) if complete else None,
    )


def _sample(samples: npt.ArrayLike, censored: npt.ArrayLike | None) -> tuple[FloatArray, BoolArray]:
    values = np.asarray(samples, dtype=np.float64)
    mask = np.zeros(values.shape, dtype=np.bool_) if censored is None else np.asarray(censored, dtype=np.bool_)
    if values.ndim != 1 or values.shape != mask.shape:
        raise ValueError(f"samples and censored must be 1-d and alike, found shapes {values.shape} and {mask.shape}")
    if np.isnan(values).any():
        raise ValueError("samples must not contain NaN: leave unknown values out or mark them as censored")
    return values, mask


def _check_percentile(p: float) -> None:
    if not 0.0 < p < 100.0:
        raise ValueError(f"a percentile must lie between 0 and 100, exclusive; found {p:g}")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _ratio(numerator: float, denominator: float, unknown: float) -> float:
    """The quotient of two ends of intervals, or ``unknown`` where one of them says nothing."""
    if denominator <= 0.0 or numerator == -math.inf or (denominator == math.inf and unknown < 0):
        return unknown
    return math.inf if numerator == math.inf else numerator / denominator


def _nearest_rank(n: int, p: float) -> int:
    return min(max(math.ceil(n * p / 100.0 - _ROUNDING), 1), n)


def _interval_ranks(n: int, q: float, confidence: float, effective_n: float) -> tuple[int, int]:
    """1-based ranks of the interval's ends among n values; 0 and n + 1 stand for an end that is not bounded."""
    size = max(1, min(n, math.floor(effective_n + _ROUNDING)))
    first, cdf = _binomial_cdf(size, q)
    tail = (1.0 - confidence) / 2.0
    low = first + int(np.count_nonzero(cdf <= tail))
    high = first + int(np.count_nonzero(cdf < 1.0 - tail)) + 1
    low_rank = 0 if low < 1 else max(1, low * n // size)
    high_rank = n + 1 if high > size else min(n, -(-high * n // size))
    return low_rank, high_rank


def _binomial_cdf(n: int, q: float) -> tuple[int, FloatArray]:
    """P(B <= k) of B ~ binomial(n, q) for k from the returned number on, out to where the tails are below 1e-20."""
    mode = min(n, int((n + 1) * q))
    reach = int(10.0 * math.sqrt(n * q * (1.0 - q))) + 50
    k = np.arange(max(0, mode - reach), min(n, mode + reach) + 1)
    steps = np.log((n - k[:-1]) / (k[:-1] + 1.0)) + math.log(q / (1.0 - q))
    log_pmf = np.concatenate(([0.0], np.cumsum(steps)))
    pmf = np.exp(log_pmf - log_pmf.max())
    return int(k[0]), np.asarray(np.cumsum(pmf) / pmf.sum(), dtype=np.float64)


def _student_quantile(level: float, degrees: float) -> float:
    """Student's t quantile by expansion in 1 / degrees (Abramowitz and Stegun 26.7.5), within 1 % from 2 degrees on."""
    z = NormalDist().inv_cdf(level)
    terms = (
        (z**3 + z) / 4.0,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96.0,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384.0,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160.0,
    )
    return z + sum(term / degrees**power for power, term in enumerate(terms, start=1))


def _bootstrap_percentiles(
    values: FloatArray, stretch: int, ps: tuple[float, float], resamples: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Two percentiles of resamples made of whole stretches, by counting ranks instead of sorting each resample.

    Each stretch becomes a histogram over ranks (exact up to 4096 values, to one part in 4096 beyond), so a resample is
    a weighted sum of histograms. A remainder shorter than a stretch is left out.
    """
    stretches = len(values) // stretch
    used = values[: stretches * stretch]
    order = np.argsort(used, kind="stable")
    bins = min(len(used), _BOOTSTRAP_BINS)
    bin_of_rank = np.arange(len(used), dtype=np.int64) * bins // len(used)
    cells = (order // stretch) * bins + bin_of_rank
    histograms = np.bincount(cells, minlength=stretches * bins).reshape(stretches, bins).astype(np.float64)
    last_of_bin = np.concatenate((np.flatnonzero(np.diff(bin_of_rank)), [len(used) - 1]))
    value_of_bin = used[order][last_of_bin]
    weights = np.random.default_rng(seed).multinomial(stretches, np.full(stretches, 1.0 / stretches), size=resamples)
    cumulative = np.cumsum(weights.astype(np.float64) @ histograms, axis=1)
    high, low = (value_of_bin[np.argmax(cumulative >= _nearest_rank(len(used), p) - 0.5, axis=1)] for p in ps)
    return high, low
