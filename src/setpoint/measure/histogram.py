"""A histogram with logarithmic bins: constant memory and cost, for figures that need not be exact."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LOW_S, HIGH_S, GROWTH = 1e-5, 1e4, 1.02
_LOG_GROWTH = math.log(GROWTH)
_BINS = math.ceil(math.log(HIGH_S / LOW_S) / _LOG_GROWTH) + 2


class LogHistogram:
    """Counts of durations in seconds in bins 2 % wide from 10 us to 10,000 s; what lies outside counts at the edge."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(_BINS, dtype=np.int64)
        self.n = 0
        self.max_s = 0.0

    def add(self, value_s: float) -> None:
        """Count one duration."""
        clipped = min(max(value_s, LOW_S), HIGH_S)
        self._counts[int(math.log(clipped / LOW_S) / _LOG_GROWTH)] += 1
        self.n += 1
        self.max_s = max(self.max_s, value_s)

    def add_many(self, values_s: NDArray[np.float64]) -> None:
        """Count many durations at once."""
        if values_s.size:
            bins = (np.log(np.clip(values_s, LOW_S, HIGH_S) / LOW_S) / _LOG_GROWTH).astype(np.int64)
            self._counts += np.bincount(bins, minlength=_BINS)
            self.n += int(values_s.size)
            self.max_s = max(self.max_s, float(values_s.max()))

    def add_histogram(self, other: LogHistogram) -> None:
        """Count everything that ``other`` counted."""
        self._counts += other._counts
        self.n += other.n
        self.max_s = max(self.max_s, other.max_s)

    def percentile(self, percent: float) -> float | None:
        """The duration at ``percent`` within 2 %, never above the maximum; ``None`` while empty."""
        if self.n == 0:
            return None
        place = int(np.searchsorted(np.cumsum(self._counts), max(1, math.ceil(self.n * percent / 100))))
        return min(LOW_S * math.pow(GROWTH, place + 0.5), max(self.max_s, LOW_S))
