"""Predictions against a table of measurements, nothing fitted on it: coverage and mean absolute relative errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from setpoint.hardware.calibrations import PHYSICS, EffectsCalibration, source_of
from setpoint.hardware.effects import Effects
from setpoint.hardware.fit_effects import logarithms_of, rows_of
from setpoint.hardware.measurements import Measurement
from setpoint.hardware.stated import stated_logs

SOURCES = ("physics", "transferred", "measured")


@dataclass(frozen=True, slots=True)
class Prediction:
    """Mean seconds to the first token and a further one, and where the coefficients come from."""

    ttft_s: float
    tpot_s: float
    source: str


def predictions(measurements: Sequence[Measurement], effects: Effects) -> list[Prediction | None]:
    """One for each row, ``None`` for refused ones."""
    places = [place for place, each in enumerate(measurements) if each.setting is not None]
    found: list[Prediction | None] = [None] * len(measurements)
    if not places:
        return found
    settings = [setting for place in places if (setting := measurements[place].setting) is not None]
    unknown = [float("nan")] * len(settings)
    rows = rows_of(settings, unknown, unknown)
    seconds = np.exp(stated_logs(rows, logarithms_of(effects, rows)))
    for place, levels, (ttft_s, tpot_s) in zip(places, rows.levels, seconds, strict=True):
        if np.isfinite(ttft_s) and np.isfinite(tpot_s):
            found[place] = Prediction(float(ttft_s), float(tpot_s), source_of(effects, levels))
    return found


@dataclass(frozen=True, slots=True)
class Score:
    """Fractions; ``None`` where no row has both a prediction and a measurement."""

    rows: int
    coverage: float
    tpot_mape: float | None
    ttft_mape: float | None

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"rows": self.rows, "coverage": self.coverage, "tpot_mape": self.tpot_mape, "ttft_mape": self.ttft_mape}


def score(measurements: Sequence[Measurement], predicted: Sequence[Prediction | None]) -> Score:
    """Coverage and errors over all of ``measurements``."""
    pairs = list(zip(measurements, predicted, strict=True))
    tpot = [abs(found.tpot_s / row.tpot_s - 1) for row, found in pairs if found and row.tpot_s]
    ttft = [abs(found.ttft_s / row.ttft_s - 1) for row, found in pairs if found and row.ttft_s]
    hit = sum(found is not None for _, found in pairs)
    return Score(len(pairs), hit / max(len(pairs), 1), _mean(tpot), _mean(ttft))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


@dataclass(frozen=True, slots=True)
class Validation:
    """The whole, each group of one engine, accelerator and model, and why rows were refused (reason: rows)."""

    total: Score
    groups: Mapping[tuple[str, str, str], tuple[Score, str]]
    refused: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """What ``setpoint hardware validate --json`` prints."""
        total = self.total.as_dict()
        return {
            "coverage": total["coverage"],
            "tpot_mape": total["tpot_mape"],
            "ttft_mape": total["ttft_mape"],
            "groups": [
                {"backend": backend, "system": system, "model": model, **found.as_dict(), "source": source}
                for (backend, system, model), (found, source) in self.groups.items()
            ],
        }


def validate(measurements: Sequence[Measurement], calibration: EffectsCalibration | None) -> Validation:
    """Score ``calibration``, or prior means alone, on ``measurements``."""
    effects = calibration.effects if calibration else Effects({})
    predicted = predictions(measurements, effects)
    members: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    refused: dict[str, int] = defaultdict(int)
    for place, row in enumerate(measurements):
        members[row.group].append(place)
        if row.setting is None:
            refused[row.refused] += 1
    groups = {}
    for group, places in sorted(members.items()):
        found = [predicted[place] for place in places]
        sources = [each.source for each in found if each] or [PHYSICS]
        groups[group] = (score([measurements[place] for place in places], found), min(sources, key=SOURCES.index))
    return Validation(score(measurements, predicted), groups, dict(refused))
