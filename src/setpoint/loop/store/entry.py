"""What the index keeps of a run, read from its folder alone: the folder is the truth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from setpoint.hardware.provenance import engine_version_of, fingerprint_of
from setpoint.record import Candidate, PhaseMeasures, Report
from setpoint.report.files import REPORT_FILE, RUN_FILE, RunFolderError, read_report

PLAN_FILE = "plan.json"
ID_DIGITS = 10
INVALID, NOT_STATED = "invalid", "unknown"
TUNE, MEASURE, SIMULATE, PLAN = "tune", "measure", "simulate", "plan"
KINDS = (TUNE, MEASURE, SIMULATE, PLAN)
MEASURED_KINDS = (TUNE, MEASURE)
QUANTITIES = ("ttft", "itl", "e2e")
# Of a requirement, what says nothing of what is asked.
ONLY_WORDS = ("name", "description")


@dataclass(frozen=True, slots=True)
class Entry:
    """One run.

    id: of its content, the same wherever the folder is moved. name: the requirement's. requirement: a digest of what it asks.
    started_s: seconds since 1970. machine: the fingerprint of the machine that ran it; system: what was measured or simulated.
    engine: versions. candidate and configuration: of what was chosen, else of the best. figures: of that candidate, by phase
    (``figures_of``). verdict: ``met``, ``missed``, ``inconclusive`` or ``invalid``.
    """

    id: str
    folder: str
    kind: str
    name: str
    requirement: str
    started_s: float
    duration_s: float
    machine: str
    system: str
    engine: str
    model: str
    verdict: str
    candidate: str
    configuration: Mapping[str, Any]
    figures: Mapping[str, Mapping[str, float | None]]
    command: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the fields, and when it started as people write it."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {**fields, "started": datetime.fromtimestamp(self.started_s, UTC).isoformat(timespec="seconds")}

    def figure(self, name: str, phase: str = "sustained") -> float | None:
        """One figure, such as ``ttft_p99_s``; ``None`` where it is not known."""
        return self.figures.get(phase, {}).get(name)


def run_id(folder: Path) -> str:
    """Digits of a hash over ``run.json`` and ``report.json``. Raises ``RunFolderError`` if there is no report."""
    digest = hashlib.sha256()
    try:
        digest.update((folder / REPORT_FILE).read_bytes())
        if (folder / RUN_FILE).is_file():
            digest.update((folder / RUN_FILE).read_bytes())
    except OSError as error:
        raise RunFolderError(f"{folder} is not the folder of a finished run: {error.strerror or error}") from error
    return digest.hexdigest()[:ID_DIGITS]


def entry_of(folder: Path) -> Entry:
    """What the index keeps of the run in ``folder``. Raises ``RunFolderError``."""
    report, info = read_report(folder / REPORT_FILE), _run_info(folder)
    requirement = report.requirement or {}
    kind = PLAN if (folder / PLAN_FILE).is_file() else report.kind
    candidate = shown_candidate(report)
    started_s, ended_s = _times(folder, info)
    return Entry(
        id=run_id(folder),
        folder=str(folder.resolve()),
        kind=kind,
        name=str(requirement.get("name") or NOT_STATED),
        requirement=requirement_digest(requirement),
        started_s=started_s,
        duration_s=max(0.0, ended_s - started_s),
        machine=fingerprint_of(report.machine),
        system=_system(report, kind, candidate),
        engine=engine_version_of(report.machine.get("versions") or report.machine),
        model=str((requirement.get("model") or {}).get("source") or NOT_STATED),
        verdict=_verdict(report, candidate),
        candidate=candidate.name if candidate else "",
        configuration=candidate.config if candidate else {},
        figures=_figures(candidate),
        command=str(report.machine.get("command") or info.get("command") or ""),
    )


def requirement_digest(requirement: Mapping[str, Any]) -> str:
    """Digits of a hash over what a requirement asks, whatever it is called and described as."""
    asked = {key: value for key, value in requirement.items() if key not in ONLY_WORDS}
    text = json.dumps(asked, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


def shown_candidate(report: Report) -> Candidate | None:
    """Whose figures stand for the run: the chosen, else the one of the highest goodput, else the first."""
    if not report.candidates:
        return None
    for each in report.candidates:
        if each.name == report.chosen:
            return each
    return max(report.candidates, key=lambda each: -1.0 if (phase := _sustained(each)) is None else phase.goodput_rps)


def figures_of(phase: PhaseMeasures) -> dict[str, float | None]:
    """P50 and P99 of each quantity in seconds, goodput, offered and shed requests, output tokens a second."""
    found: dict[str, float | None] = {}
    for quantity in QUANTITIES:
        summary = getattr(phase, f"{quantity}_s")
        found |= {f"{quantity}_p50_s": summary.p50, f"{quantity}_p99_s": summary.p99}
    return found | {
        "goodput_fraction": phase.goodput_fraction,
        "goodput_rps": phase.goodput_rps,
        "output_tokens_per_s": phase.output_tokens_per_s,
        "offered": float(phase.offered),
        "shed": float(phase.shed),
    }


def _sustained(candidate: Candidate) -> PhaseMeasures | None:
    of = candidate.measured or candidate.predicted
    return of.sustained if of is not None else None


def _figures(candidate: Candidate | None) -> dict[str, dict[str, float | None]]:
    of = None if candidate is None else candidate.measured or candidate.predicted
    if of is None:
        return {}
    phases = {"sustained": of.sustained, "burst": of.burst}
    return {name: figures_of(phase) for name, phase in phases.items() if phase is not None}


def _verdict(report: Report, candidate: Candidate | None) -> str:
    if not report.validity.valid:
        return INVALID
    if report.chosen is not None and candidate is not None:
        return candidate.slo.verdict.value
    return {0: "met", 1: "missed"}.get(report.exit_code(), "inconclusive")


def _system(report: Report, kind: str, candidate: Candidate | None) -> str:
    """What the figures are of: this machine's own engine, a server, or hardware that was simulated."""
    if kind == PLAN:
        return candidate.name if candidate else "no plan"
    simulated = (report.load or {}).get("simulated")
    if isinstance(simulated, Mapping):
        return f"simulated {simulated.get('replicas', 1)} x {simulated.get('hardware', NOT_STATED)}"
    own = candidate is not None and "max_running" in candidate.config
    return "setpoint here" if own else "a server"


def _run_info(folder: Path) -> Mapping[str, Any]:
    try:
        info = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{folder / RUN_FILE} cannot be read as JSON: {error}") from error
    return info if isinstance(info, dict) else {}


def _times(folder: Path, info: Mapping[str, Any]) -> tuple[float, float]:
    """Start and end. A simulation has no start, a folder without ``run.json`` only the time of its report."""
    start, end = info.get("started_unix_s"), info.get("ended_unix_s")
    if not isinstance(end, int | float):
        end = (folder / REPORT_FILE).stat().st_mtime
    return (float(start) if isinstance(start, int | float) and start > 0 else float(end)), float(end)
