"""A scraped quantity over time: what a gauge did and how much a counter rose between two instants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Series:
    """Values at rising times in seconds, both of one length; what was not known at a time is left out."""

    times_s: FloatArray
    values: FloatArray

    @classmethod
    def of(cls, times_s: Sequence[float], values: Sequence[float | None]) -> Series:
        """From values with gaps; what is missing at the end of ``values`` counts as a gap."""
        known = [(time_s, value) for time_s, value in zip(times_s, values, strict=False) if value is not None]
        pairs = np.asarray(known, dtype=np.float64).reshape(-1, 2)
        return cls(pairs[:, 0], pairs[:, 1])

    def within(self, start_s: float, end_s: float) -> Series:
        """The values from ``start_s`` up to, not including, ``end_s``."""
        inside = (self.times_s >= start_s) & (self.times_s < end_s)
        return Series(self.times_s[inside], self.values[inside])

    def peak(self, start_s: float, end_s: float) -> float | None:
        """The largest value seen between two instants; ``None`` if none was seen."""
        values = self.within(start_s, end_s).values
        return float(values.max()) if values.size else None

    def mean(self, start_s: float, end_s: float) -> float | None:
        """The mean over time between two instants, straight lines between the values seen; ``None`` if none was seen."""
        seen = self.within(start_s, end_s)
        if not seen.values.size:
            return None
        length_s = float(seen.times_s[-1] - seen.times_s[0])
        return seen.integral() / length_s if length_s > 0 else float(seen.values.mean())

    def integral(self) -> float:
        """The area under the straight lines between the values: watts over seconds are joules."""
        return float(np.trapezoid(self.values, self.times_s))

    def area(self, start_s: float, end_s: float) -> float | None:
        """The area between two instants, with the values at the instants themselves read off the lines.

        Outside what was seen the nearest value stands in. ``None`` if nothing was seen between the instants.
        """
        seen = self.within(start_s, end_s)
        if not seen.values.size or not np.isfinite([start_s, end_s]).all():
            return None
        times_s = np.concatenate([[start_s], seen.times_s, [end_s]])
        return float(np.trapezoid(np.interp(times_s, self.times_s, self.values), times_s))

    def rise(self, start_s: float, end_s: float) -> float | None:
        """How much a counter rose between two instants, read off the lines between the values around them.

        A fall is a restart: the counter began again and what it lost is not known, so that step counts as nothing and
        the rise is a lower bound. ``None`` if fewer than two values were seen, or none that reach into the interval.
        """
        if self.values.size < 2 or end_s <= self.times_s[0] or start_s >= self.times_s[-1]:
            return None
        risen = np.concatenate([[0.0], np.cumsum(np.maximum(np.diff(self.values), 0.0))])
        first, last = np.interp([start_s, end_s], self.times_s, risen)
        return float(last - first)

    def falls_s(self) -> list[float]:
        """When a counter was first seen lower than before."""
        return [float(time_s) for time_s in self.times_s[1:][np.diff(self.values) < 0]]
