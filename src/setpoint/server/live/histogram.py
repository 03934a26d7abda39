"""Counts of durations in fine bins: cheap to add to, cut into seconds, summed over a window, read as percentiles.

Bins grow by ``GROWTH`` from a tenth of a millisecond to ten minutes, so a percentile read from them is within 3 %. Limits and
the buckets of Prometheus are bounds of bins too: how many values were within a limit is exact.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import inf
from typing import Final

import numpy as np
import numpy.typing as npt

GROWTH: Final = 1.06
LEAST_S: Final = 1e-4
MOST_S: Final = 600.0
# So much is forgiven where a whole rank comes out of a share as a little more.
ROUNDING: Final = 1e-9

Bins = npt.NDArray[np.int64]


def fine_bounds(limits_s: Iterable[float] = (), buckets_s: Iterable[float] = ()) -> tuple[float, ...]:
    """Upper bounds of bins in seconds, ascending: the regular ones and those given, all positive and finite."""
    regular = [LEAST_S]
    while regular[-1] < MOST_S:
        regular.append(regular[-1] * GROWTH)
    given = [each for each in (*limits_s, *buckets_s) if 0 < each < inf]
    return tuple(sorted({*regular, *given}))


class DurationCounts:
    """Durations by bin, those of the present second apart from all before. For one thread.

    ``lost`` are values that never came (a request that failed before its first token): beyond every bound, in windows
    only.
    """

    __slots__ = ("_before", "_bounds", "_now", "_sum_s", "lost")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds = tuple(bounds_s)
        self._before: Bins = np.zeros(len(self._bounds) + 1, dtype=np.int64)
        self._now = [0] * (len(self._bounds) + 1)
        self._sum_s = 0.0
        self.lost = 0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._now[bisect_left(self._bounds, seconds)] += 1
        self._sum_s += seconds

    def zeros(self, count: int) -> None:
        """Count ``count`` durations of nothing."""
        self._now[0] += count

    def cut(self) -> Bins:
        """The bins counted since the last cut, lost values in the last; shape ``[bounds + 1]``."""
        taken = np.array(self._now, dtype=np.int64)
        self._before += taken
        self._now = [0] * len(self._now)
        taken[-1] += self.lost
        self.lost = 0
        return taken

    @property
    def count(self) -> int:
        """Durations so far."""
        return int(self._before.sum()) + sum(self._now)

    def totals(self, buckets_s: Sequence[float]) -> tuple[list[int], int, float]:
        """So far: how many were at most each of ``buckets_s`` (each a bound of bins), how many in all, and their sum."""
        running = list(accumulate((self._before + np.array(self._now, dtype=np.int64)).tolist()))
        return [running[bisect_left(self._bounds, each)] for each in buckets_s], running[-1], self._sum_s


def within(bins: Bins, bounds_s: Sequence[float], limit_s: float) -> int:
    """How many were at most ``limit_s``; exact where that is a bound of bins."""
    return int(bins[: bisect_left(bounds_s, limit_s) + 1].sum())


def percentile_s(bins: Bins, bounds_s: Sequence[float], percent: float) -> float | None:
    """The percentile, linear within its bin; ``None`` without values, ``inf`` where it is beyond all bounds."""
    total = int(bins.sum())
    if total == 0:
        return None
    rank = max(ROUNDING, percent / 100.0 * total - ROUNDING)
    ends = np.cumsum(bins)
    place = int(np.searchsorted(ends, rank))
    if place >= len(bounds_s):
        return inf
    lower_s = bounds_s[place - 1] if place else 0.0
    share = (rank - float(ends[place] - bins[place])) / float(bins[place])
    return lower_s + share * (bounds_s[place] - lower_s)
