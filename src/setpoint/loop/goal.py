"""``--until``: measure until a percentile is known well enough, such as ``p99<10%``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from setpoint.loop.errors import BadInput
from setpoint.requirement import LatencyMetric, UnitError
from setpoint.requirement.units import parse_fraction

_GOAL = re.compile(r"(?:(?P<metric>ttft|itl|tpot|e2e)_)?p(?P<percent>\d+(?:\.\d+)?)\s*<=?\s*(?P<width>.+)")
MAX_WIDTH = 2.0


@dataclass(frozen=True, slots=True)
class Goal:
    """The 95 % interval of ``percentile`` of ``metric`` is to be at most ``relative_width`` of it wide to either side.

    metric: ``None`` is TTFT, or E2E where nothing streams.
    """

    metric: LatencyMetric | None
    percentile: float
    relative_width: float

    def words(self) -> str:
        """As typed."""
        metric = "" if self.metric is None else f"{self.metric}_"
        return f"{metric}p{self.percentile:g}<{100 * self.relative_width:g}%"


def parse_goal(text: str) -> Goal:
    """Raises ``BadInput``."""
    found = _GOAL.fullmatch(text.strip().lower())
    allowed = "a percentile and how well it is to be known, such as p99<10% or e2e_p95<5%"
    if found is None:
        raise BadInput(f"--until {text}: allowed: {allowed}")
    try:
        width, percent = parse_fraction(found["width"]), float(found["percent"])
    except UnitError:
        raise BadInput(f"--until {text}: allowed: {allowed}") from None
    if not (0 < percent < 100 and 0 < width <= MAX_WIDTH):
        raise BadInput(f"--until {text}: allowed: {allowed}")
    metric = LatencyMetric(found["metric"]) if found["metric"] else None
    return Goal(metric, percent, width)
