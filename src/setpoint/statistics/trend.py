"""Two questions about a series in time: does it begin unlike it goes on, and does it rise throughout?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from setpoint.statistics.dependence import effective_sample_size
from setpoint.statistics.samples import FloatArray
from setpoint.statistics.student import student_probability_above

TREND_BATCHES = 8
LEAST_PER_BATCH = 5
MSER_BATCH = 5
LEAST_MSER_BATCHES = 8
TRANSIENT_ERRORS = 5.0


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through a series: what it rises by over the whole length, and how probable a rise at least as clear
    is in a series that does not rise."""

    rise: float
    p_value: float


def batch_means(series: FloatArray) -> FloatArray | None:
    """The means of ``TREND_BATCHES`` consecutive stretches; ``None`` below ``LEAST_PER_BATCH`` values in each."""
    length = len(series) // TREND_BATCHES
    if length < LEAST_PER_BATCH:
        return None
    return np.asarray(series[: length * TREND_BATCHES].reshape(TREND_BATCHES, length).mean(axis=1), dtype=np.float64)


def rising_trend(means: FloatArray) -> Trend:
    """Whether a dependent series rises, from the means of ``TREND_BATCHES`` stretches of it (``batch_means``).

    A line is fitted; its residuals hold the wandering of the series that outlasts a stretch, and give Student's t of the
    slope. Where even a stretch is shorter than the wandering (a queue at 95 % utilisation over a few hundred requests) a
    wave looks like a rise more often than the p-value says.
    """
    count = len(means)
    place = np.arange(count) - (count - 1) / 2.0
    slope = float(place @ means) / float(place @ place)
    residuals = means - means.mean() - slope * place
    error = math.sqrt(float(residuals @ residuals) / (count - 2) / float(place @ place))
    if error <= 1e-12 * max(1.0, float(np.abs(means).max())):
        return Trend(slope * count, 0.0 if slope > 0.0 else 1.0)
    return Trend(slope * count, student_probability_above(slope / error, count - 2))


def transient_length(series: FloatArray) -> int:
    """How many values at the start do not belong to the rest, by MSER-5 (White, Simulation 69, 1997; batches of 5).

    The cut minimises the squared standard error of the mean of what remains, over the first half of the series. It counts
    only if the mean before it differs from the mean after it by ``TRANSIENT_ERRORS`` standard errors, dependence
    considered. 0 for a series below 40 values, and where the best cut is the last one possible: that is a drift.
    """
    batches = len(series) // MSER_BATCH
    if batches < LEAST_MSER_BATCHES or not np.isfinite(series).all():
        return 0
    means = series[: batches * MSER_BATCH].reshape(batches, MSER_BATCH).mean(axis=1)
    remaining = np.arange(batches, 0, -1)
    total = np.cumsum(means[::-1])[::-1]
    squares = np.cumsum((means * means)[::-1])[::-1]
    spread = np.maximum(squares - total * total / remaining, 0.0) / remaining**2
    half = batches // 2
    cut = int(np.argmin(spread[: half + 1]))
    if cut in (0, half):
        return 0
    rest = means[cut:]
    variance = float(rest.var(ddof=1)) * len(rest) / effective_sample_size(rest)
    error = math.sqrt(variance * (1.0 / cut + 1.0 / len(rest)))
    return cut * MSER_BATCH if abs(float(means[:cut].mean() - rest.mean())) > TRANSIENT_ERRORS * error else 0
