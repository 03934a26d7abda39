"""The frame every chart shares: grid, ticks, axis names, the limit line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from setpoint.report.charts.scales import Scale
from setpoint.report.charts.svg import line, rect, tag, text

Format = Callable[[float], str]
HALF_WIDTH, HALF_HEIGHT = 520.0, 296.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 14.0, 14.0, 44.0


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn chart: its heading, the SVG, and a note for below it (empty if there is nothing to note)."""

    heading: str
    svg: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """Two axes and what stands on them. ``x_unit`` and ``y_unit`` are what a script shows beside a value it reads back."""

    x: Scale
    y: Scale
    x_unit: str = ""
    y_unit: str = ""

    @property
    def left(self) -> float:
        """Left edge, px."""
        return self.x.start_px

    @property
    def right(self) -> float:
        """Right edge, px."""
        return self.x.end_px

    @property
    def top(self) -> float:
        """Upper edge, px."""
        return min(self.y.start_px, self.y.end_px)

    @property
    def bottom(self) -> float:
        """Lower edge, px."""
        return max(self.y.start_px, self.y.end_px)

    def y_axis(self, form: Format, name: str = "", most: int = 6) -> str:
        """Horizontal grid lines with their values, and the axis name above them."""
        parts = [text(self.left, self.top - 11, name, "axis")] if name else []
        for tick in self.y.ticks(most):
            y = self.y.at(tick)
            parts += [line(self.left, y, self.right, y, "grid"), text(self.left - 8, y + 4, form(tick), "tick", "end")]
        return "".join(parts)

    def x_axis(self, form: Format, name: str = "", most: int = 6, *, lines: bool = False) -> str:
        """The base line with its values, and the axis name below them."""
        parts = [line(self.left, self.bottom, self.right, self.bottom, "base")]
        for tick in self.x.ticks(most):
            x = self.x.at(tick)
            parts.append(line(x, self.top if lines else self.bottom, x, self.bottom + 4, "grid" if lines else "base"))
            parts.append(text(x, self.bottom + 18, form(tick), "tick", "middle"))
        if name:
            parts.append(text(self.right, self.bottom + 37, name, "axis", "end"))
        return "".join(parts)

    def limit_y(self, value: float, label: str) -> str:
        """A limit as a horizontal line; what is over it is tinted."""
        if not self.y.holds(value):
            return ""
        y = self.y.at(value)
        return (
            rect(self.left, self.top, self.right - self.left, y - self.top, "over")
            + line(self.left, y, self.right, y, "limit")
            + text(self.left + 6, y - 6, label, "limit-text")
        )

    def limit_x(self, value: float, label: str) -> str:
        """A limit as a vertical line; what is over it is tinted."""
        if not self.x.holds(value):
            return ""
        x = self.x.at(value)
        room = x > (self.left + self.right) / 2
        return (
            rect(x, self.top, self.right - x, self.bottom - self.top, "over")
            + line(x, self.top, x, self.bottom, "limit")
            + text(x + (-5 if room else 5), self.top + 11, label, "limit-text", "end" if room else "start")
        )

    def wrap(self, *children: str) -> str:
        """A group from which a script can read values back."""
        return tag(
            "g",
            *children,
            class_="panel",
            data_x=f"{self.x.words()} {self.x_unit}".strip(),
            data_y=f"{self.y.words()} {self.y_unit}".strip(),
        )


def half_box() -> tuple[float, float, float, float]:
    """Left, right, top and bottom of the plotting area of a chart that takes half the page."""
    return LEFT, HALF_WIDTH - RIGHT, TOP, HALF_HEIGHT - BOTTOM


def thin(points: int, most: int) -> NDArray[np.int64]:
    """Indices of at most ``most`` of ``points`` points, evenly spaced, first and last kept."""
    if points <= most:
        return np.arange(points)
    return np.unique(np.linspace(0, points - 1, most).round().astype(np.int64))
