"""Names beside points without overlaps: the first free place of a few around each point."""

from __future__ import annotations

from typing import NamedTuple

from setpoint.report.charts.svg import Anchor, line

CHARACTER_PX, LINE_PX = 6.6, 14.0
MOST_STEPS = 6


class Area(NamedTuple):
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Area) -> float:
        """The shared area in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0


class Mark(NamedTuple):
    """A mark that wants its name beside it."""

    x: float
    y: float
    radius: float
    name: str


class Place(NamedTuple):
    """Where a label's baseline starts, and to which side it grows."""

    x: float
    y: float
    anchor: Anchor


def _places(x: float, y: float, radius: float) -> list[Place]:
    """Places around a mark of ``radius`` px, best first: beside it, above and below, then farther off."""
    beside, over, under = radius + 5, radius + 6, radius + 15
    places = [Place(x + beside, y + 4, "start"), Place(x - beside, y + 4, "end")]
    places += [Place(x, y - over, "middle"), Place(x, y + under, "middle")]
    for step in range(MOST_STEPS):
        up, down = y - over - step * LINE_PX, y + under + step * LINE_PX
        places += [Place(x + radius, up, "start"), Place(x - radius, up, "end")]
        places += [Place(x + radius, down, "start"), Place(x - radius, down, "end")]
    return places


def _area(place: Place, label: str) -> Area:
    width = CHARACTER_PX * len(label)
    left = place.x - {"start": 0.0, "middle": width / 2, "end": width}[place.anchor]
    return Area(left, place.y - LINE_PX + 3, left + width, place.y + 3)


def place_labels(marks: list[Mark], inside: Area, reserved: list[Area]) -> list[Place]:
    """One place for every mark's name, the last mark served first; the least bad place where none is free.

    Names stay off ``reserved`` and, if it can be, ``inside``.
    """
    taken = [Area(m.x - m.radius, m.y - m.radius, m.x + m.radius, m.y + m.radius) for m in marks] + reserved
    places: list[Place] = []
    for mark in reversed(marks):

        def cost(place: Place, name: str = mark.name) -> float:
            area = _area(place, name)
            within = area.overlap(inside)
            outside = (area.right - area.left) * (area.bottom - area.top) - within
            return sum(area.overlap(other) for other in taken) + 4 * outside

        best = min(_places(mark.x, mark.y, mark.radius), key=cost)
        places.append(best)
        taken.append(_area(best, mark.name))
    return places[::-1]


def leader(mark: Mark, place: Place) -> str:
    """A thin line from a mark to its name, where the name had to go far."""
    if abs(place.y - mark.y) < mark.radius + 2 * LINE_PX:
        return ""
    end_y = place.y + 4 if place.y < mark.y else place.y - LINE_PX + 3
    start_y = mark.y - mark.radius if place.y < mark.y else mark.y + mark.radius
    end_x = place.x + {"start": 4.0, "middle": 0.0, "end": -4.0}[place.anchor]
    return line(mark.x, start_y, end_x, end_y, "leader")
