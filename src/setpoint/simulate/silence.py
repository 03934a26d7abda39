"""The engine's records where nobody reads them: a simulation of a million requests keeps its own account."""

from __future__ import annotations

from typing import Any

from setpoint.engine.decision_log import DecisionLog
from setpoint.engine.step_record import StepRing


class NoDecisions(DecisionLog):
    """Takes every decision and keeps none."""

    def asked(self, *_: Any, **__: Any) -> None:
        """Nothing is kept."""

    def joined(self, *_: Any, **__: Any) -> None:
        """Nothing is kept."""

    def preempted(self, *_: Any, **__: Any) -> None:
        """Nothing is kept."""

    def shed(self, *_: Any, **__: Any) -> None:
        """Nothing is kept."""

    def ended(self, *_: Any, **__: Any) -> None:
        """Nothing is kept."""


class NoSteps(StepRing):
    """Counts steps."""

    def passed(self, steps: int, seconds: float) -> None:
        """So many steps more, which took so long."""
        self.total += steps
        self.seconds_total += seconds
