"""The spread of one sample: the ratio of two of its percentiles."""

from __future__ import annotations

import math

import numpy.typing as npt

from setpoint.statistics.differences import Estimate, ratio
from setpoint.statistics.intervals import percentile_interval
from setpoint.statistics.samples import Interval, finite, percentile


def ratio_interval(
    samples: npt.ArrayLike,
    upper_p: float = 99.0,
    lower_p: float = 50.0,
    confidence: float = 0.95,
    censored: npt.ArrayLike | None = None,
    *,
    transient: bool = False,
) -> Interval | None:
    """An interval of the ratio of two percentiles of one sample in arrival order, P99 / P50 unless told otherwise.

    From the intervals of both percentiles, by ``differences.ratio``. That takes them as independent; in truth they rise
    and fall together, which makes the interval a little wide and never too narrow. It is open above where the upper
    percentile has no upper end; ``None`` where nothing can be said.
    """
    upper, lower = (
        Estimate(
            finite(percentile(samples, p, censored)),
            percentile_interval(samples, p, confidence, censored=censored, transient=transient),
        )
        for p in (upper_p, lower_p)
    )
    if lower.interval is None or not math.isfinite(lower.interval[1]) or lower.interval[1] <= 0.0:
        return None
    return ratio(lower, upper).interval
