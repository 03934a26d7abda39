"""Calibrations: JSON files that say what was measured, bundled (``data/calibrations``) and the user's own.

Two kinds. ``effects``: factors on physical coefficients from tables of closed-loop measurements (``effects.py``). ``steps``:
the coefficients of one model on one accelerator under one engine, from observed steps (``step_fit.py``).
A file of the user's that says the same as a bundled one wins; among several, the newest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from setpoint.hardware.accelerator import THIS_MACHINE, vendors_of
from setpoint.hardware.deployment import Deployment
from setpoint.hardware.effects import Effects
from setpoint.hardware.errors import HardwareError
from setpoint.hardware.provenance import Provenance, provenance_from
from setpoint.hardware.user_data import user_folder

SCHEMA = 1
MOST_FILES = 256
MEASURED, TRANSFERRED, PHYSICS = "measured", "transferred", "physics"
UNSEEN_VENDOR_ERROR = 0.45
"""Least relative error where no accelerator of its vendor was measured under the engine, or none that errors were learned on.

Held-out errors of ``transferred`` and ``physics`` are of one vendor's accelerators and say nothing of another's: the one
comparison with such steps that there is was far worse (MI300X, docs/hardware.md).
"""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Relative errors on rows that were not fitted: mean absolute, and the standard deviation of ln(predicted / true)."""

    rows: int
    tpot_mape: float
    ttft_mape: float
    tpot_deviation: float
    ttft_deviation: float


@dataclass(frozen=True, slots=True)
class EffectsCalibration:
    """Effects, the names of the rows they were fitted on, and held-out errors by source.

    deviations: of ln(predicted / true) of TPOT by group (``group_name``), shrunk to that of the source. learned_on: engines and
    accelerators whose rows taught the errors, by the names that effects have; ``None``: those whose rows the effects are of.
    """

    name: str
    note: str
    effects: Effects
    rows: frozenset[str]
    errors: Mapping[str, HeldOut]
    deviations: Mapping[str, float] = field(default_factory=dict)
    learned_on: frozenset[str] | None = None

    @property
    def fitted_on(self) -> frozenset[str]:
        """Engines and accelerators whose rows the effects were fitted to, such as ``vllm h100-sxm``."""
        return frozenset(self.effects.factors.get("engine accelerator", {}))

    @property
    def taught_by(self) -> frozenset[str]:
        """Those whose rows taught the errors."""
        return self.fitted_on if self.learned_on is None else self.learned_on


@dataclass(frozen=True, slots=True)
class StepsCalibration:
    """What ``step_fit.py`` found for one model on one accelerator under one engine; ``provenance`` where a run taught it."""

    name: str
    note: str
    accelerator: str
    engine: str
    model: str
    weight_precision: str
    fit: Mapping[str, Any]
    relative_error: float
    provenance: Provenance | None = None

    def stale(self) -> str | None:
        """Why it does not hold here any more, ``None`` if it does, or if nothing is known of where it comes from."""
        if self.accelerator != THIS_MACHINE or self.provenance is None:
            return None
        return self.provenance.stale()


Calibration = EffectsCalibration | StepsCalibration


def calibrations() -> tuple[Calibration, ...]:
    """All there are, the strongest first: the user's own from the newest, then the bundled. Raises ``HardwareError``."""
    return (*_own(), *_bundled())


def own_folder() -> Path:
    """Where a user's calibrations are."""
    return user_folder() / "calibrations"


def save(name: str, document: Mapping[str, Any]) -> Path:
    """Write a calibration into the user's folder and return its file. Raises ``OSError``."""
    parsed(document, where=name)
    file = own_folder() / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    partial.replace(file)
    return file


@cache
def _bundled() -> tuple[Calibration, ...]:
    folder = resources.files("setpoint.hardware").joinpath("data", "calibrations")
    files = sorted((each for each in folder.iterdir() if each.name.endswith(".json")), key=lambda each: each.name)
    return tuple(_read(file) for file in files)


def _own() -> tuple[Calibration, ...]:
    folder = own_folder()
    if not folder.is_dir():
        return ()
    files = sorted(folder.glob("*.json"), key=lambda each: (-each.stat().st_mtime_ns, each.name))[:MOST_FILES]
    return tuple(_read_once(file, file.stat().st_mtime_ns) for file in files)


@cache
def _read_once(file: Path, _: int) -> Calibration:
    return _read(file)


def _read(file: Traversable) -> Calibration:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HardwareError(f"{file}: cannot be read as JSON: {str(error).splitlines()[0]}") from error
    return parsed(document, where=str(file))


def parsed(document: Any, *, where: str) -> Calibration:
    """A calibration from its file's content. Raises ``HardwareError`` that names ``where``."""
    try:
        if document["schema"] != SCHEMA:
            raise HardwareError(f"{where}: schema {document['schema']!r}; this version reads {SCHEMA}")
        if document["kind"] == "effects":
            return EffectsCalibration(
                str(document["name"]),
                str(document["note"]),
                Effects(document["effects"], _counts(document.get("counts", {}))),
                frozenset(document["rows"]),
                {source: HeldOut(**errors) for source, errors in document["errors"].items()},
                {str(name): float(value) for name, value in document.get("deviations", {}).items()},
                None if document.get("learned_on") is None else frozenset(map(str, document["learned_on"])),
            )
        return StepsCalibration(
            name=str(document["name"]),
            note=str(document["note"]),
            accelerator=str(document["accelerator"]),
            engine=str(document["engine"]),
            model=str(document["model"]),
            weight_precision=str(document["weight_precision"]),
            fit=dict(document["fit"]),
            relative_error=float(document["relative_error"]),
            provenance=provenance_from(document.get("provenance")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HardwareError(f"{where}: is not a calibration of setpoint: {error}") from error


def _counts(document: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Fitted rows by level and name; files from before they were kept have none. Raises ``ValueError`` for less than a row."""
    found = {level: {name: int(rows) for name, rows in names.items()} for level, names in document.items()}
    if any(rows < 1 for names in found.values() for rows in names.values()):
        raise ValueError("counts must be at least 1")
    return found


def effects_calibration() -> EffectsCalibration | None:
    """The strongest with effects, if there is one."""
    return next(iter(all_effects()), None)


def all_effects() -> list[EffectsCalibration]:
    """Those with effects, the strongest first."""
    return [each for each in calibrations() if isinstance(each, EffectsCalibration)]


def errors_of(calibration: EffectsCalibration | None) -> dict[str, Any]:
    """Held-out errors as a calibration's file has them, for one that was made from ``calibration`` and has none of its own.

    Whose rows taught them goes with them: of other vendors' accelerators they say nothing, whatever rows the new one is of.
    """
    if calibration is None:
        return {"errors": {}, "deviations": {}, "learned_on": []}
    return {
        "errors": {source: asdict(each) for source, each in calibration.errors.items()},
        "deviations": dict(calibration.deviations),
        "learned_on": sorted(calibration.taught_by),
    }


def source_of(effects: Effects, levels: Mapping[str, str]) -> str:
    """``measured`` where the accelerator was measured under this engine, ``transferred`` where only the engine was."""
    if effects.knows("engine accelerator", levels["engine accelerator"]):
        return MEASURED
    return TRANSFERRED if effects.knows("engine", levels["engine"]) else PHYSICS


def group_name(deployment: Deployment) -> str:
    """Engine, accelerator and model: what held-out errors are kept for."""
    return f"{deployment.kernels} {deployment.accelerator.name} {deployment.model.shape}"


def relative_error(calibration: EffectsCalibration, deployment: Deployment, levels: Mapping[str, str]) -> float | None:
    """One standard deviation of ln(predicted / true): of its group where that was fitted, else of its kind.

    At least ``UNSEEN_VENDOR_ERROR`` where nothing of its vendor was measured, or nothing of it taught the errors.
    """
    kind = error_kind(calibration.effects, levels)
    group = calibration.deviations.get(group_name(deployment)) if kind == MEASURED else None
    errors = calibration.errors.get(kind)
    return _no_narrower(calibration, deployment, group or (errors.tpot_deviation if errors else None))


def relative_ttft_error(calibration: EffectsCalibration, deployment: Deployment, levels: Mapping[str, str]) -> float | None:
    """The same of TTFT, which is kept by kind alone."""
    errors = calibration.errors.get(error_kind(calibration.effects, levels))
    return _no_narrower(calibration, deployment, errors.ttft_deviation if errors else None)


def _no_narrower(calibration: EffectsCalibration, deployment: Deployment, found: float | None) -> float | None:
    """The error that was found, at least that of a guess where nothing of the vendor was measured, or taught it."""
    return found if vendor_known(calibration, deployment) else max(found or 0.0, UNSEEN_VENDOR_ERROR)


def vendor_known(calibration: EffectsCalibration, deployment: Deployment) -> bool:
    """Whether its accelerator, or another of the same vendor, was measured under its engine, and errors were learned on one."""
    return all(_holds_vendor(names, deployment) for names in (calibration.fitted_on, calibration.taught_by))


def _holds_vendor(names: frozenset[str], deployment: Deployment) -> bool:
    """Whether its accelerator or another of the same vendor is among ``names``, under its engine."""
    device, start = deployment.accelerator, f"{deployment.kernels} "
    there = {name.removeprefix(start) for name in names if name.startswith(start)}
    return device.name in there or device.vendor in vendors_of(there)


def error_kind(effects: Effects, levels: Mapping[str, str]) -> str:
    """Under which name held-out errors of such a prediction are kept: as ``source_of``, unseen models apart."""
    source = source_of(effects, levels)
    if source == MEASURED and not effects.knows("engine family", levels["engine family"]):
        return "measured, unseen model"
    return source
