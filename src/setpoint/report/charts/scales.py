"""Axes: from values to pixels, and where the ticks go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Kind = Literal["linear", "log", "tail"]
MOST_TICKS = 12


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps ``[low, high]`` to ``[start_px, end_px]``; values outside are drawn at the edge.

    ``log``: equal ratios have equal lengths. ``tail``: for cumulative shares in [0, 1), position -log10(1 - share), so that
    0, 90 %, 99 % and 99.9 % are equally far apart.
    """

    kind: Kind
    low: float
    high: float
    start_px: float
    end_px: float

    def _position(self, values: ArrayLike) -> NDArray[np.float64]:
        array = np.asarray(values, dtype=np.float64)
        clipped = np.clip(array, self.low, self.high)
        if self.kind == "log":
            return np.log10(clipped)
        return -np.log10(1.0 - clipped) if self.kind == "tail" else clipped

    def px(self, values: ArrayLike) -> NDArray[np.float64]:
        """Pixels of ``values``; NaN stays NaN."""
        low, high = self._position(self.low), self._position(self.high)
        return self.start_px + (self._position(values) - low) / (high - low) * (self.end_px - self.start_px)

    def at(self, value: float) -> float:
        """The pixel of one value."""
        return float(self.px(value))

    def holds(self, value: float) -> bool:
        """Whether ``value`` is on the axis."""
        return self.low <= value <= self.high

    def ticks(self, most: int = 6) -> list[float]:
        """Round values on the axis, about ``most`` of them."""
        if self.kind == "tail":
            return [share for share in (0.0, 0.5, 0.9, 0.95, 0.99, 0.999) if self.holds(share)]
        return _log_ticks(self.low, self.high, most) if self.kind == "log" else _linear_ticks(self.low, self.high, most)

    def words(self) -> str:
        """What a script needs to read values back from pixels."""
        return f"{self.kind} {self.low:.6g} {self.high:.6g} {self.start_px:.1f} {self.end_px:.1f}"


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / max(most, 1)
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = int(np.ceil(low / step - 1e-9))
    return [round(index * step, 12) for index in range(first, first + MOST_TICKS) if index * step <= high * (1 + 1e-9)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks: list[float] = []
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [tick for decade in decades for factor in factors if low <= (tick := factor * 10.0**decade) <= high * 1.0001]
        if len(ticks) <= most + 1:
            break
    return ticks[: MOST_TICKS * 2]


def linear_scale(values: ArrayLike, start_px: float, end_px: float, *, from_zero: bool = True) -> Scale:
    """A linear axis that holds all finite ``values`` with some room above."""
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array)]
    high = float(array.max()) if len(array) else 1.0
    low = 0.0 if from_zero or not len(array) else float(array.min())
    room = (high - low) or abs(high) or 1.0
    if not from_zero:
        low = max(0.0, low - 0.15 * room) if low >= 0 else low - 0.15 * room
    return Scale("linear", low, high + 0.12 * room, start_px, end_px)


def log_scale(values: ArrayLike, start_px: float, end_px: float, *, least_ratio: float = 6.0) -> Scale:
    """A logarithmic axis that holds all positive finite ``values``, spanning at least ``least_ratio``."""
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array) & (array > 0)]
    low, high = (float(array.min()), float(array.max())) if len(array) else (0.01, 1.0)
    low, high = max(low, 1e-9) / 1.25, max(high, 1e-9) * 1.25
    if high / low < least_ratio:
        widen = float(np.sqrt(least_ratio * low / high))
        low, high = low / widen, high * widen
    return Scale("log", low, high, start_px, end_px)


def tail_scale(samples: int, start_px: float, end_px: float) -> Scale:
    """A ``tail`` axis that shows as far as ``samples`` values can say anything: up to 99.5 % at least, 99.95 % at most."""
    high = 1.0 - 1.0 / min(max(samples + 1, 200), 2000)
    return Scale("tail", 0.0, high, start_px, end_px)
