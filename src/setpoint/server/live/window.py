"""Seconds of a server's life in a bounded ring, and their sums over a window of the newest.

A slice is whatever passed between two ticks: about a second, more where the event loop was held up. Rates divide by the time
that slices really cover, so a late tick spoils nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Final

import numpy as np

from setpoint.server.live.checks import LatencyCheck, SpreadCheck
from setpoint.server.live.histogram import Bins, percentile_s, within

# Ticks come no faster than this, so the ring of a window is bounded by its length.
LEAST_SLICE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Slice:
    """One stretch between ticks. counts: how much was added to each total; bins: by metric, (judged, free)."""

    start_s: float
    end_s: float
    counts: Mapping[str, int]
    bins: Mapping[str, tuple[Bins, Bins]]


@dataclass(frozen=True, slots=True)
class Span:
    """Sums over slices that cover ``length_s`` seconds. Bins are empty arrays where there is no slice."""

    length_s: float
    counts: Mapping[str, int]
    judged: Mapping[str, Bins] = field(default_factory=dict)
    every: Mapping[str, Bins] = field(default_factory=dict)

    def count(self, name: str) -> int:
        """How much was added to a total."""
        return self.counts.get(name, 0)

    def rate(self, name: str) -> float | None:
        """The same a second; ``None`` for no time at all."""
        return self.count(name) / self.length_s if self.length_s > 0 else None

    def share(self, part: str, *whole: str) -> float | None:
        """``part`` of the sum of ``whole``; ``None`` where that is nothing."""
        total = sum(self.count(each) for each in whole)
        return self.count(part) / total if total else None


class SliceRing:
    """The newest slices, as many as ``keep_s`` seconds hold."""

    def __init__(self, keep_s: float) -> None:
        self.keep_s = keep_s
        self._slices: deque[Slice] = deque(maxlen=int(keep_s / LEAST_SLICE_S) + 1)

    def add(self, one: Slice) -> None:
        """Add the newest; what ended ``keep_s`` before it ended goes."""
        self._slices.append(one)
        while self._slices[0].end_s <= one.end_s - self.keep_s:
            self._slices.popleft()

    def newest(self, length_s: float) -> Span:
        """Sums over the slices that ended less than ``length_s`` seconds before the newest ended: at least the newest."""
        chosen = list(self._within(length_s))
        if not chosen:
            return Span(0.0, {})
        counts: dict[str, int] = {}
        for each in chosen:
            for name, value in each.counts.items():
                counts[name] = counts.get(name, 0) + value
        judged = {name: np.sum([each.bins[name][0] for each in chosen], axis=0) for name in chosen[0].bins}
        free = {name: np.sum([each.bins[name][1] for each in chosen], axis=0) for name in chosen[0].bins}
        length = sum(each.end_s - each.start_s for each in chosen)
        return Span(length, counts, judged, {name: judged[name] + free[name] for name in judged})

    def _within(self, length_s: float) -> Iterator[Slice]:
        if self._slices:
            since_s = self._slices[-1].end_s - length_s
            for each in reversed(self._slices):
                if each.end_s <= since_s:
                    return
                yield each

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` if slices overlap or are older than may be."""
        slices = list(self._slices)
        for before, after in pairwise(slices):
            assert before.end_s <= after.start_s, "slices overlap"
            assert after.end_s - before.end_s <= self.keep_s, "a slice is too old"


@dataclass(frozen=True, slots=True)
class CheckState:
    """One limit over a window.

    value: seconds, a ratio or a share, ``None`` where nothing is known, ``inf`` where requests failed before it was.
    judged: values it rests on. attained: share of them within the limit; needed: share that has to be. held: ``None``
    where nothing was judged.
    """

    metric: str
    statistic: str
    limit: float
    value: float | None
    judged: int
    attained: float | None
    needed: float | None
    held: bool | None


def latency_state(check: LatencyCheck, span: Span, bounds_s: tuple[float, ...], *, all_values: bool = False) -> CheckState:
    """A percentile's limit, decided as in a report: by the share of values within it."""
    bins = (span.every if all_values else span.judged).get(check.metric)
    judged = 0 if bins is None else int(bins.sum())
    statistic, needed = f"p{check.percentile:g}", check.percentile / 100.0
    if bins is None or not judged:
        return CheckState(check.metric, statistic, check.limit_s, None, 0, None, needed, None)
    good = within(bins, bounds_s, check.limit_s)
    value = percentile_s(bins, bounds_s, check.percentile)
    held = good >= needed * judged - 1e-9
    return CheckState(check.metric, statistic, check.limit_s, value, judged, good / judged, needed, held)


def spread_state(check: SpreadCheck, span: Span, bounds_s: tuple[float, ...]) -> CheckState:
    """P99 / P50 against its limit, over every value of the metric that has a limit, or over all if none has."""
    judged, every = span.judged.get(check.metric), span.every.get(check.metric)
    bins = every if judged is None or not judged.sum() else judged
    value = None
    if bins is not None:
        p50, p99 = (percentile_s(bins, bounds_s, percent) for percent in (50.0, 99.0))
        value = None if p50 is None or p99 is None else inf if p99 == inf else p99 / p50
    count = 0 if bins is None else int(bins.sum())
    held = None if value is None else value <= check.limit
    return CheckState(check.metric, "spread", check.limit, value, count, None, None, held)


def share_state(metric: str, share: float | None, judged: int, limit: float, *, least: bool) -> CheckState:
    """A share of offered requests against its limit: at least or at most."""
    held = None if share is None else (share >= limit if least else share <= limit)
    return CheckState(metric, "min" if least else "max", limit, share, judged, None, None, held)
