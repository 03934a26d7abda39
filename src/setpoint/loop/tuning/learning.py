"""What the measurements so far teach of the machine and of the requests, and what that changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from setpoint.loop.forecast.forecast import Forecast
from setpoint.loop.forecast.machine import KnownMachine, machine_of_runs, step_ratios
from setpoint.loop.tuning.trial import Trial
from setpoint.simulate.calibrated import TooFewSteps


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one trial taught. speed: its steps' seconds over those that ``before`` predicted, as a whole (``None``: unknown).

    requests: what was foretold of prompts, answers and prefix hits, and what came, by name.
    """

    before: KnownMachine
    after: KnownMachine
    speed: float | None
    requests: dict[str, tuple[float | None, float | None]]

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return {
            "before": _machine(self.before),
            "after": _machine(self.after),
            "speed": self.speed,
            "requests": {name: {"predicted": told, "measured": seen} for name, (told, seen) in self.requests.items()},
        }


def learned(trials: Sequence[Trial], prior: KnownMachine) -> KnownMachine:
    """The machine as all ``trials`` together show it; ``prior`` where they have too few steps."""
    tables = [each.tables for each in trials]
    try:
        return machine_of_runs([each for each in tables if each is not None])
    except (TooFewSteps, ValueError):
        return prior


def speed_of(trial: Trial, machine: KnownMachine) -> float | None:
    """Seconds of all steps of ``trial`` over those that ``machine`` predicts for the same work."""
    if trial.tables is None:
        return None
    steps = trial.tables.steps
    took_s = np.asarray(steps["end_s"], dtype=np.float64) - np.asarray(steps["start_s"], dtype=np.float64)
    ratios = step_ratios(steps, machine.timer, machine.overheads.change_s)
    return float(took_s.sum() / (took_s / ratios).sum())


def requests_lesson(forecast: Forecast, trial: Trial) -> dict[str, tuple[float | None, float | None]]:
    """Of the requests under the sustained load: what was foretold and what came."""
    told, seen = forecast.predicted.sustained, trial.run.measured.sustained
    return {
        "prompt_tokens_per_s": (told.prompt_tokens_per_s, seen.prompt_tokens_per_s),
        "output_tokens_per_s": (told.output_tokens_per_s, seen.output_tokens_per_s),
        "prefix_hit_rate": (told.prefix_hit_rate, seen.prefix_hit_rate),
    }


def _machine(machine: KnownMachine) -> dict[str, Any]:
    return {
        "source": machine.source,
        "words": machine.words,
        "error": machine.error,
        "coefficients": machine.coefficients,
        "between_s": machine.overheads.between_s,
        "change_s": machine.overheads.change_s,
    }
