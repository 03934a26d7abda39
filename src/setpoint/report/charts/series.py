"""Series over time: counts per bin, requests in flight, and long series reduced to a few hundred slots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from setpoint.report.charts.samples import Floats, RequestSamples

BINS = 120
NICE_BINS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


def bin_width_s(duration_s: float) -> float:
    """A round bin width that cuts ``duration_s`` into at most about ``BINS`` bins."""
    return next((width for width in NICE_BINS_S if duration_s / width <= BINS), duration_s / BINS)


def per_second(moments_s: Floats, end_s: float, width_s: float) -> tuple[Floats, Floats]:
    """Events per second in bins of ``width_s``: left edges in seconds, and rates. The last bin may be a part of one."""
    moments_s = moments_s[np.isfinite(moments_s)]
    bins = max(1, int(np.ceil(end_s / width_s)))
    edges_s: Floats = np.arange(bins + 1, dtype=np.float64) * width_s
    counts, _ = np.histogram(moments_s, bins=edges_s)
    return edges_s[:-1], counts.astype(np.float64) / width_s


def in_flight(requests: RequestSamples) -> tuple[Floats, Floats]:
    """Requests sent and not yet ended, as a step function: times in seconds, and the number from then on.

    A request without an end counts until the end of the run; one never sent does not count.
    """
    sent = np.isfinite(requests.sent_s)
    starts_s = requests.sent_s[sent]
    ends_s = np.where(np.isfinite(requests.ended_s[sent]), requests.ended_s[sent], requests.end_s())
    times_s = np.concatenate([starts_s, ends_s])
    changes = np.concatenate([np.ones(len(starts_s)), -np.ones(len(ends_s))])
    order = np.lexsort((-changes, times_s))
    return times_s[order], np.cumsum(changes[order])


def slots(times_s: Floats, values: Floats, end_s: float, most: int, *, least: bool = False) -> tuple[Floats, Floats]:
    """At most ``most`` points: in each of equal slots of time the greatest value (the least one if ``least``)."""
    known = np.isfinite(times_s) & np.isfinite(values)
    times_s, values = times_s[known], values[known]
    if len(times_s) <= most or end_s <= 0:
        return times_s, values
    slot: NDArray[np.int64] = np.clip((times_s / end_s * most).astype(np.int64), 0, most - 1)
    extreme = np.full(most, np.inf if least else -np.inf)
    (np.minimum if least else np.maximum).at(extreme, slot, values)
    used = np.isfinite(extreme)
    return (np.arange(most)[used] + 0.5) * end_s / most, extreme[used]


def stairs(times: Floats, values: Floats, end: float) -> tuple[Floats, Floats]:
    """Corner points of a step function that keeps each value until the next time, the last until ``end``."""
    if len(times) == 0:
        return times, values
    xs = np.repeat(np.append(times, max(end, float(times[-1]))), 2)[1:-1]
    return xs, np.repeat(values, 2)


WINDOWS_MAX = 60
SAMPLES_PER_WINDOW = 25


def window_edges_s(moments_s: Floats, bounds_s: Floats) -> Floats:
    """Edges of windows that each hold about ``SAMPLES_PER_WINDOW`` samples and never reach over one of ``bounds_s``.

    ``bounds_s`` are ascending, the first and the last of them where the windows begin and end.
    """
    moments_s = moments_s[np.isfinite(moments_s)]
    inside, _ = np.histogram(moments_s, bins=bounds_s)
    most = max(1, WINDOWS_MAX // max(1, len(inside)))
    pieces = [
        np.linspace(start_s, end_s, min(most, max(1, samples // SAMPLES_PER_WINDOW)), endpoint=False)
        for start_s, end_s, samples in zip(bounds_s, bounds_s[1:], inside.tolist(), strict=False)
    ]
    return np.append(np.concatenate(pieces), bounds_s[-1])


def percentiles_by_time(
    moments_s: Floats, values: Floats, edges_s: Floats, levels: tuple[float, ...], *, least: tuple[int, ...]
) -> list[Floats]:
    """Percentiles of ``values`` in the windows between ``edges_s``: one series for each of ``levels``.

    A window with fewer than the level's ``least`` samples has no value of it (NaN).
    """
    known = np.isfinite(moments_s) & np.isfinite(values)
    moments_s, values = moments_s[known], values[known]
    windows = len(edges_s) - 1
    place = np.clip(np.searchsorted(edges_s, moments_s, side="right") - 1, 0, windows - 1)
    order = np.lexsort((values, place))
    counts = np.bincount(place, minlength=windows)
    starts = np.cumsum(counts) - counts
    ranked = values[order]
    series = []
    for level, fewest in zip(levels, least, strict=True):
        rank = np.clip(np.ceil(counts * level / 100.0).astype(np.int64) - 1, 0, None)
        found = np.full(windows, np.nan)
        enough = counts >= max(1, fewest)
        found[enough] = ranked[(starts + rank)[enough]]
        series.append(found)
    return series


def counts_by_time(moments_s: Floats, labels: NDArray[np.object_], names: list[str], end_s: float) -> tuple[Floats, Floats]:
    """How many moments of each label fall into each bin: left edges in seconds, and counts of shape ``[names, bins]``."""
    width_s = bin_width_s(end_s)
    bins = max(1, int(np.ceil(end_s / width_s)))
    edges_s: Floats = np.arange(bins + 1, dtype=np.float64) * width_s
    counts = [np.histogram(moments_s[(labels == name) & np.isfinite(moments_s)], bins=edges_s)[0] for name in names]
    return edges_s[:-1], np.array(counts, dtype=np.float64).reshape(len(names), bins)
