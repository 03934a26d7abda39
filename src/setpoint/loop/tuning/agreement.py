"""A prediction beside a measurement: each figure, how far apart they are, and whether that is within the stated error.

Stated is, for each figure, what the forecast's worlds with the plan's arrivals show between their extremes (``worlds.py``: 90 %
of what the machine's speed is unsure by, and the noise of its steps), and at least ``BARS``: what the simulator claims of
itself on this engine (docs/simulate.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from setpoint.loop.forecast.forecast import Forecast
from setpoint.record import Measured, Phase, PhaseMeasures, Summary

BARS = {"p50": 0.10, "p99": 0.20}
GOODPUT_BAR = 0.05
METRICS = ("ttft", "itl", "e2e")
GOODPUT = "goodput_fraction"


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of one phase. ``low``, ``high``: what was stated. A share is compared by difference, all else by ratio."""

    phase: Phase
    metric: str
    statistic: str
    predicted: float
    measured: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Predicted over measured, less one; of a share the difference."""
        if self.metric == GOODPUT:
            return self.predicted - self.measured
        return self.predicted / self.measured - 1.0 if self.measured else 0.0

    @property
    def agrees(self) -> bool:
        """Whether what was measured is within what was stated."""
        return self.low <= self.measured <= self.high

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            "phase": str(self.phase),
            "metric": self.metric,
            "statistic": self.statistic,
            "predicted": self.predicted,
            "measured": self.measured,
            "stated": [self.low, self.high],
            "error": self.error,
            "agrees": self.agrees,
        }


def compared(forecast: Forecast, measured: Measured) -> tuple[Compared, ...]:
    """Every figure that both have, the sustained phase first."""
    arrivals = {each.world.arrivals for each in forecast.outcomes if each.world.deviation == 0.0}
    same = [each for each in forecast.outcomes if each.world.arrivals in arrivals]
    found: list[Compared] = []
    for phase in (Phase.SUSTAINED, Phase.BURST):
        told, seen = _figures(forecast.predicted, phase), _figures(measured, phase)
        if told is None or seen is None:
            continue
        worlds = [figures for each in same if (figures := _figures(each.predicted, phase)) is not None]
        for metric in METRICS:
            for statistic in BARS:
                found += _latency(phase, metric, statistic, told, seen, worlds)
        found += _goodput(phase, told, seen, worlds)
    return tuple(found)


def agree(figures: Sequence[Compared]) -> bool:
    """Whether prediction and measurement agree where it lasts: every figure of the sustained phase is as stated."""
    return all(each.agrees for each in figures if each.phase is Phase.SUSTAINED)


def _latency(
    phase: Phase, metric: str, statistic: str, told: PhaseMeasures, seen: PhaseMeasures, worlds: Sequence[PhaseMeasures]
) -> list[Compared]:
    predicted, measured = _value(told, metric, statistic), _value(seen, metric, statistic)
    if predicted is None or measured is None:
        return []
    values = [value for each in worlds if (value := _value(each, metric, statistic)) is not None]
    bar = BARS[statistic]
    low = min([*values, predicted / (1.0 + bar)])
    high = max([*values, predicted / (1.0 - bar)])
    return [Compared(phase, metric, statistic, predicted, measured, low, high)]


def _goodput(phase: Phase, told: PhaseMeasures, seen: PhaseMeasures, worlds: Sequence[PhaseMeasures]) -> list[Compared]:
    if told.goodput_fraction is None or seen.goodput_fraction is None:
        return []
    values = [each.goodput_fraction for each in worlds if each.goodput_fraction is not None]
    low, high = min([*values, told.goodput_fraction - GOODPUT_BAR]), max([*values, told.goodput_fraction + GOODPUT_BAR])
    return [Compared(phase, GOODPUT, "min", told.goodput_fraction, seen.goodput_fraction, max(0.0, low), min(1.0, high))]


def _figures(of: Measured, phase: Phase) -> PhaseMeasures | None:
    return of.burst if phase is Phase.BURST else of.sustained


def _value(figures: PhaseMeasures, metric: str, statistic: str) -> float | None:
    summary = getattr(figures, f"{metric}_s")
    value = getattr(summary, statistic) if isinstance(summary, Summary) else None
    return float(value) if value else None
