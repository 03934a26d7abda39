"""Where a calibration of this machine comes from, and whether it still holds: the same machine, the same engine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from setpoint import __version__
from setpoint.hardware.errors import HardwareError
from setpoint.hardware.this_machine import fingerprint, fingerprint_words
from setpoint.record.processor import CPU_FEATURES, FIRST_CPU_FEATURES, cpu_features

UNKNOWN = "unknown"
ENGINE_PACKAGES = ("setpoint", "openvino")


@dataclass(frozen=True, slots=True)
class Provenance:
    """The run that taught a calibration.

    run: its id in the index of runs, empty if steps were run on purpose. folder: where it was. measured: when it ended, in UTC
    (ISO 8601). machine: ``this_machine.fingerprint``. engine_version: as ``engine_version_of`` has it. model: as a requirement
    names it; model_hash: of its weights, ``None`` where they could not be found. steps: how many were fitted.
    """

    run: str
    folder: str
    measured: str
    machine: str
    engine_version: str
    model: str
    model_hash: str | None
    steps: int

    def as_dict(self) -> dict[str, Any]:
        """As a calibration's file has it."""
        return asdict(self)

    def words(self) -> str:
        """For a person: ``run 3f2a (runs/demo), 2026-11-02 10:04 UTC, 5120 steps``."""
        run = f"run {self.run} ({self.folder})" if self.run else "steps run on purpose"
        return f"{run}, {self.measured[:16].replace('T', ' ')} UTC, {self.steps} steps"

    def stale(self) -> str | None:
        """Why it does not hold on this machine as it is now, ``None`` if it does."""
        if self.machine != here():
            return f"it was measured on another machine ({self.machine}; this one is {here()})"
        if self.engine_version != installed_engine():
            return f"it was measured with {self.engine_version}; installed is {installed_engine()}"
        return None


@cache
def here() -> str:
    """The fingerprint of this machine."""
    return fingerprint()


@cache
def installed_engine() -> str:
    """What ``engine_version_of`` says of what is installed."""
    return engine_version_of({"setpoint": __version__, "openvino": _installed("openvino")})


def engine_version_of(versions: Mapping[str, Any]) -> str:
    """``setpoint 0.1.0, openvino 2026.4.0``: what step times depend on, of the versions that a report has."""
    return ", ".join(f"{name} {versions.get(name) or UNKNOWN}" for name in ENGINE_PACKAGES)


def fingerprint_of(facts: Mapping[str, Any]) -> str:
    """The fingerprint of the machine that a report's ``machine`` describes: equal to ``here()`` if it is this one.

    Instructions that were not looked for when the report was written are those of this machine, if all else is as it is here.
    """
    has = frozenset(facts.get("cpu_features") or ())
    unsought = frozenset(CPU_FEATURES).difference(facts.get("cpu_features_sought") or FIRST_CPU_FEATURES)
    if unsought:
        filled = _fingerprint_with(facts, has.union(unsought.intersection(cpu_features())))
        if filled == fingerprint():
            return filled
    return _fingerprint_with(facts, has)


def _fingerprint_with(facts: Mapping[str, Any], features: Collection[str]) -> str:
    architecture, cpu, cores = (str(facts.get(name) or UNKNOWN) for name in ("architecture", "cpu", "cores_usable"))
    listed = [name for name in CPU_FEATURES if name in features]
    return fingerprint_words(architecture, cpu, cores, int(facts.get("memory_bytes") or 0) >> 30, listed)


def provenance_from(document: Mapping[str, Any] | None) -> Provenance | None:
    """What a calibration's file says of its origin; ``None`` where it says nothing. Raises ``HardwareError``."""
    if document is None:
        return None
    try:
        wanted = {field.name: document[field.name] for field in fields(Provenance)}
        return Provenance(**{**wanted, "steps": int(wanted["steps"])})
    except (KeyError, TypeError, ValueError) as error:
        raise HardwareError(f"the provenance of a calibration lacks {error}") from error


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
