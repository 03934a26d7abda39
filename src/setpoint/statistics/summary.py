"""A sample in a few figures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from setpoint.statistics.intervals import percentile_interval
from setpoint.statistics.samples import (
    BoolArray,
    FloatArray,
    Interval,
    as_sample,
    finite,
    kaplan_meier_percentile,
    percentile_bounds,
)

SUMMARY_PERCENTILES = (50.0, 90.0, 95.0, 99.0)


@dataclass(frozen=True, slots=True)
class SampleSummary:
    """A sample in a few figures, in the sample's own unit; ``None`` where the sample cannot say.

    n counts censored values too; censored is how many there are, ``None`` for none. mean and max are ``None`` as soon as one
    value is unknown (censored or infinite): the mean and the maximum of the others would flatter. The intervals are of 95 %,
    ``None`` unless both ends are finite. at_least names the percentiles that are lower bounds, ``None`` for none of them.
    """

    n: int
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p99_ci: Interval | None = None
    max: float | None = None
    p50_ci: Interval | None = None
    p90_ci: Interval | None = None
    p95_ci: Interval | None = None
    censored: int | None = None
    at_least: tuple[str, ...] | None = None


def summarise(
    samples: npt.ArrayLike,
    censored: npt.ArrayLike | None = None,
    *,
    cut_off_at_random: bool = False,
    transient: bool = False,
) -> SampleSummary:
    """Mean, percentiles with their intervals, and maximum of a sample in arrival order.

    A percentile that depends on what the censored values came to is Kaplan and Meier's estimate, or the largest known value
    where that does not reach so far. Either is a lower bound, and named in ``at_least``, unless the estimate reaches so far
    and ``cut_off_at_random`` says that the values cut off are like the others (a steady load). ``transient``: see
    ``dependence``.
    """
    values, mask = as_sample(samples, censored)
    if not len(values):
        return SampleSummary(0)
    complete = not mask.any() and bool(np.isfinite(values).all())
    points = {f"p{p:g}": _point(values, mask, p, cut_off_at_random) for p in SUMMARY_PERCENTILES}
    intervals = {f"p{p:g}": percentile_interval(values, p, censored=mask, transient=transient) for p in SUMMARY_PERCENTILES}
    p50, p90, p95, p99 = (points[f"p{p:g}"][0] for p in SUMMARY_PERCENTILES)
    p50_ci, p90_ci, p95_ci, p99_ci = (_both_ends(interval) for interval in intervals.values())
    return SampleSummary(
        n=len(values),
        mean=float(values.mean()) if complete else None,
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        p99_ci=p99_ci,
        max=float(values.max()) if complete else None,
        p50_ci=p50_ci,
        p90_ci=p90_ci,
        p95_ci=p95_ci,
        censored=int(mask.sum()) or None,
        at_least=tuple(name for name, (value, bound) in points.items() if bound and value is not None) or None,
    )


def _point(values: FloatArray, mask: BoolArray, p: float, cut_off_at_random: bool) -> tuple[float | None, bool]:
    """A percentile, and whether it is no more than a lower bound."""
    bounds = percentile_bounds(values, p, mask)
    if bounds is None or bounds[0] == bounds[1]:
        return (None if bounds is None else finite(bounds[0])), False
    estimate = kaplan_meier_percentile(values, p, mask)
    if estimate is not None:
        return finite(estimate), not cut_off_at_random
    known = values[~mask]
    return finite(max(bounds[0], float(known.max()) if len(known) else -math.inf)), True


def _both_ends(interval: Interval | None) -> Interval | None:
    return interval if interval is not None and all(map(math.isfinite, interval)) else None
