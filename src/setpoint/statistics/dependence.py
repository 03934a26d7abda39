"""How much information a series in time carries, whose neighbours are alike because they stood in the same queue."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from setpoint.statistics.samples import ROUNDING, FloatArray

MOST_BLOCKS = 8192
LEAST_TAIL = 10
COURSE_WAVES = 4


@dataclass(frozen=True, slots=True)
class Dependence:
    """What dependence costs, and how well that is known.

    inefficiency: how many values of the series carry as much information as one independent value, at least 1. degrees:
    how many times the reach of the correlation fits into the series, the degrees of freedom of the estimate. share: the
    part of the variance that is due to the dependence, 0 for an independent series, towards 1 for a strongly dependent one.
    """

    inefficiency: float
    degrees: float

    @property
    def share(self) -> float:
        """1 - 1 / inefficiency."""
        return 1.0 - 1.0 / self.inefficiency

    def worse(self, other: Dependence) -> Dependence:
        """The larger inefficiency of two estimates with the fewer degrees."""
        return Dependence(max(self.inefficiency, other.inefficiency), min(self.degrees, other.degrees))


INDEPENDENT = Dependence(1.0, math.inf)


def dependence(series: npt.ArrayLike, *, transient: bool = False) -> Dependence:
    """The dependence of a series, for its mean.

    The inefficiency is 1 + 2 x the sum of the autocorrelations, cut by Geyer's initial monotone sequence: autocorrelations
    are added in pairs (lags 1 and 2, 3 and 4, ...) until a pair is not positive, and no pair counts more than the one before
    (Geyer, Practical Markov chain Monte Carlo, Statistical Science 7, 1992, section 3.3). What subtracting the mean takes
    from the lags up to m is put back by dividing by 1 - (2 m + 1) / n. Negative correlation is not credited. A constant
    series counts in full. Above ``MOST_BLOCKS`` values the sums of equal stretches stand for the values.

    ``transient``: the slow course of the series (its first ``COURSE_WAVES`` half waves) is no chance but what such a phase
    is like each time, as a burst is; only what departs from the course counts as dependence.
    """
    x = np.asarray(series, dtype=np.float64)
    n = len(x)
    centred = x - x.mean() if n else x
    if n < 4 or not np.any(np.abs(centred) > ROUNDING * (1.0 + np.abs(x).max())):
        return INDEPENDENT
    variance = float(centred @ centred) / n
    stretch = -(-n // MOST_BLOCKS)
    blocks = len(x) // stretch
    sums = centred[: blocks * stretch].reshape(blocks, stretch).sum(axis=1)
    if transient:
        sums = _without_course(sums)
    covariance = _autocovariance(sums)
    pairs = covariance[1 : blocks - (blocks - 1) % 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0.0)
    used = pairs[: ends[0]] if len(ends) else pairs
    window = 4 * len(used) + 1
    total = float(covariance[0]) + 2.0 * float(np.minimum.accumulate(used).sum()) if len(used) else float(covariance[0])
    total /= stretch * max(0.2, 1.0 - window / blocks)
    return Dependence(float(np.clip(total / variance, 1.0, n)), blocks / window)


def effective_sample_size(series: npt.ArrayLike) -> float:
    """How many independent values carry as much information on the mean as this series, between 1 and its length."""
    n = len(np.asarray(series))
    return n / dependence(series).inefficiency


def tail_dependence(values: FloatArray, beyond: float, *, transient: bool = False) -> Dependence:
    """The dependence of the indicators "among the ``beyond`` largest values" (a count that need not be whole).

    That is what the uncertainty of a percentile rests on: the count of values beyond it, so infinite values are no obstacle.
    Few indicators say little about how they cluster, so no fewer than ``LEAST_TAIL`` are looked at, twice as many are looked
    at beside them, and the worse of both is taken; no more than half of the values are. Values that differ by less than one
    part in 10^9 are rounding and count as equal.
    """
    n = len(values)
    counts = {round(min(max(beyond * times, LEAST_TAIL), n / 2.0)) for times in (1.0, 2.0)}
    found = INDEPENDENT
    for count in sorted(counts):
        if 1 <= count < n:
            found = found.worse(dependence(_among_largest(values, count), transient=transient))
    return found


def _among_largest(values: FloatArray, count: int) -> FloatArray:
    place = len(values) - count - 1
    threshold = float(np.partition(values, place)[place])
    margin = ROUNDING * abs(threshold) if math.isfinite(threshold) else 0.0
    among = values > threshold + margin
    if not among.any():
        among = values >= threshold - margin
    return among.astype(np.float64)


def _without_course(series: FloatArray) -> FloatArray:
    """The series without its mean and its first half waves over its length."""
    n = len(series)
    place = (np.arange(n) + 0.5) * math.pi / n
    waves = np.cos(np.outer(np.arange(1, COURSE_WAVES + 1), place)) * math.sqrt(2.0 / n)
    return np.asarray(series - series.mean() - (waves @ series) @ waves, dtype=np.float64)


def _autocovariance(centred: FloatArray) -> FloatArray:
    """Sums of products at lags 0 .. n - 1, over n."""
    n = len(centred)
    spectrum = np.fft.rfft(centred, 1 << (2 * n - 1).bit_length())
    return np.asarray(np.fft.irfft(spectrum * np.conj(spectrum))[:n] / n, dtype=np.float64)
