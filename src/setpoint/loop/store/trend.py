"""One requirement over time: the same figures of its runs in a row, and what else changed between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from setpoint.loop.errors import BadInput
from setpoint.loop.store.entry import MEASURED_KINDS, QUANTITIES, Entry, requirement_digest
from setpoint.requirement import load_requirement

BARS = "▁▂▃▄▅▆▇█"
MOST_POINTS = 200


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a trend. changed: what is not as in the run before; empty for the first and where all is the same."""

    entry: Entry
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trend:
    """Runs of one requirement, the oldest first; ``quantity`` is which P50 and P99 are shown; ``warnings`` are sentences."""

    requirement: str
    quantity: str
    phase: str
    points: tuple[Point, ...]
    warnings: tuple[str, ...]

    def series(self, figure: str) -> list[float | None]:
        """One figure over the runs, such as ``goodput_fraction``, ``p50`` or ``p99``."""
        name = f"{self.quantity}_{figure}_s" if figure in ("p50", "p99") else figure
        return [each.entry.figure(name, self.phase) for each in self.points]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "requirement": self.requirement,
            "quantity": self.quantity,
            "phase": self.phase,
            "runs": [{**each.entry.as_dict(), "changed": list(each.changed)} for each in self.points],
            "warnings": list(self.warnings),
        }


def trend(entries: Sequence[Entry], wanted: str, *, quantity: str | None, phase: str, kind: str | None) -> Trend:
    """The last ``MOST_POINTS`` runs of ``wanted``: a requirement's name, or its file. Raises ``BadInput`` if there are none.

    Without ``kind`` runs that measured count, not those that simulated. Without ``quantity`` it is TTFT, or E2E where no first
    token is known. Invalid runs are shown; their figures are no less doubtful here.
    """
    name, digest = _asked(wanted)
    kinds = MEASURED_KINDS if kind is None else (kind,)
    chosen = [each for each in entries if each.name == name and each.kind in kinds]
    if not chosen:
        known = sorted({each.name for each in entries if each.kind in kinds})
        raise BadInput(
            f"{wanted}: no {' or '.join(kinds)} run of it is known; there are {', '.join(known[:12]) or 'none at all'}"
        )
    if quantity is not None and quantity not in QUANTITIES:
        raise BadInput(f"--of {quantity}: allowed are {', '.join(QUANTITIES)}")
    ordered = sorted(chosen, key=lambda each: (each.started_s, each.id))[-MOST_POINTS:]
    points = [Point(ordered[0], ())]
    points += [Point(each, changes(before, each)) for before, each in pairwise(ordered)]
    return Trend(name, quantity or _telling(ordered), phase, tuple(points), tuple(_warnings(ordered, digest)))


def changes(before: Entry, after: Entry) -> tuple[str, ...]:
    """What differs between two runs beside their figures."""
    pairs = {
        "requirement": (before.requirement, after.requirement),
        "machine": (before.machine, after.machine),
        "version": (before.engine, after.engine),
        "model": (before.model, after.model),
        "system": (before.system, after.system),
        "configuration": (dict(before.configuration), dict(after.configuration)),
    }
    return tuple(name for name, (left, right) in pairs.items() if left != right)


def sparkline(values: Sequence[float | None]) -> str:
    """A bar a value from the least to the greatest, a space where none is known."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return ""
    # Halved, so that no difference overflows, unless that would make the least ones equal.
    part = 0.5 if math.isinf(max(known) - min(known)) else 1.0
    low, high = part * min(known), part * max(known)

    def bar(value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return " "
        return BARS[round((len(BARS) - 1) * ((part * value - low) / (high - low)))] if high > low else BARS[0]

    return "".join(map(bar, values))


def _asked(wanted: str) -> tuple[str, str | None]:
    """Name and digest of a requirement's file; of a bare name no digest is known."""
    if Path(wanted).suffix.lower() in (".yaml", ".yml"):
        needed = load_requirement(Path(wanted))
        return needed.name, requirement_digest(needed.model_dump(mode="json"))
    return wanted, None


def _telling(entries: Sequence[Entry]) -> str:
    return "ttft" if any(each.figure("ttft_p50_s") is not None for each in entries) else "e2e"


def _warnings(entries: Sequence[Entry], digest: str | None) -> list[str]:
    sides: dict[str, set[object]] = {
        "machines": {each.machine for each in entries},
        "versions": {each.engine for each in entries},
        "models": {each.model for each in entries},
        "requirements": {each.requirement for each in entries},
        "systems": {each.system for each in entries},
        "configurations": {(each.candidate, str(sorted(each.configuration.items()))) for each in entries},
    }
    differing = [f"{len(found)} {name}" for name, found in sides.items() if len(found) > 1]
    said = []
    if differing:
        said.append(
            f"These runs are of {_joined(differing)}: a step in the figures may be theirs; see what changed beside each."
        )
    if digest is not None and all(each.requirement != digest for each in entries):
        said.append("None of these runs was of the requirement as the file has it now.")
    return said


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
