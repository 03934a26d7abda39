"""Calibrations that runs leave behind: what ``tune``, ``plan`` and ``simulate`` know of this machine before they measure.

``remember`` fits the steps of a run into a calibration of ``hardware.calibrations`` with its provenance, and keeps beside it
the rows it comes from, as a run's folder may be written over. ``past_calibration`` finds it again where it still holds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from setpoint.hardware.accelerator import THIS_MACHINE
from setpoint.hardware.calibrations import StepsCalibration, calibrations, own_folder
from setpoint.hardware.errors import HardwareError
from setpoint.hardware.model_facts import model_facts
from setpoint.hardware.provenance import Provenance, engine_version_of, fingerprint_of, here
from setpoint.hardware.step_fit import step_fit_from
from setpoint.hardware.step_time import ObservedTimer
from setpoint.loop.store.entry import run_id
from setpoint.report.files import DECISIONS_FILE, REQUESTS_FILE, STEPS_FILE, Run, RunFolderError, read_run
from setpoint.simulate.calibrated import CalibratedMachine, TooFewSteps, calibrate

ENGINE = "setpoint"
LEAST_STEPS = 200
MOST_ROWS = 200_000
# A run with fewer steps than this share of what an older calibration comes from does not take its place.
ENOUGH_SHARE = 0.5
HEAVY_COLUMNS = ("token_times_s",)


@dataclass(frozen=True, slots=True)
class PastCalibration:
    """What past runs taught of one model on this machine. ``evidence``: the folder with the rows it comes from, if kept."""

    calibration: StepsCalibration
    provenance: Provenance
    evidence: Path | None

    def timer(self) -> ObservedTimer:
        """How long steps take."""
        return ObservedTimer(step_fit_from(self.calibration.fit), self.calibration.relative_error)

    def machine(self, candidate: str | None = None) -> CalibratedMachine | None:
        """The machine as ``simulate.calibrated`` sees it, overheads and noise included: from the steps of ``candidate``, else
        of the one with most. ``None`` if the rows were not kept or are too few."""
        found = {str(steps["candidate"][0]): (requests, steps, decisions) for requests, steps, decisions in self.tables()}
        if not found or (candidate is not None and candidate not in found):
            return None
        chosen = candidate if candidate is not None else max(found, key=lambda name: (found[name][1].num_rows, name))
        requests, steps, decisions = found[chosen]
        try:
            return calibrate(steps, requests, decisions)
        except TooFewSteps:
            return None

    def tables(self) -> list[tuple[pa.Table, pa.Table, pa.Table | None]]:
        """Requests, steps and decisions of each candidate of the run; empty if the rows were not kept or cannot be read."""
        if self.evidence is None:
            return []
        try:
            steps, requests = (pq.read_table(self.evidence / file) for file in (STEPS_FILE, REQUESTS_FILE))
            file = self.evidence / DECISIONS_FILE
            decisions = pq.read_table(file) if file.is_file() else None
        except (OSError, pa.ArrowException):
            return []
        names = pc.unique(steps["candidate"]).to_pylist()
        return [
            (_rows_of(requests, name), _rows_of(steps, name), None if decisions is None else _rows_of(decisions, name))
            for name in names
        ]

    def words(self) -> str:
        """One sentence on where it comes from and how sure it is."""
        return f"{self.provenance.words()}, error of a step {self.calibration.relative_error:.0%} (one standard deviation)"


@dataclass(frozen=True, slots=True)
class Remembered:
    """What came of ``remember``: the name of the calibration, ``None`` if the run taught nothing that is kept, and why."""

    name: str | None
    words: str


def past_calibration(
    model: str, engine: str = ENGINE, machine: str | None = None, say: Callable[[str], None] = lambda _: None
) -> PastCalibration | None:
    """The newest calibration of ``model`` (as a requirement names it) under ``engine`` on ``machine`` (a fingerprint; default:
    this one) that a run taught and that still holds. ``say`` hears of each that does not, and why.

    Raises ``HardwareError`` for a calibration's file or a model that cannot be read.
    """
    facts, digest = model_facts(model), model_hash(model)
    for each in calibrations():
        if not isinstance(each, StepsCalibration) or each.provenance is None or each.accelerator != THIS_MACHINE:
            continue
        if (each.engine, each.model, each.weight_precision) != (engine, facts.shape, facts.native_precision):
            continue
        found = each.provenance
        reason = found.stale() if machine in (None, here()) else _other_machine(found, str(machine))
        if reason is None and digest is not None and found.model_hash not in (None, digest):
            reason = f"the weights of {model} are others now"
        if reason is None:
            folder = own_folder() / each.name
            return PastCalibration(each, found, folder if (folder / STEPS_FILE).is_file() else None)
        say(f"what {found.words()} taught is not used: {reason}")
    return None


def remember(folder: Path, *, model: str | None = None) -> Remembered:
    """Learn from the run in ``folder``, if it is of this machine's own engine and there is enough of it.

    Does not raise for a run that teaches nothing: ``Remembered.words`` says why. Raises ``RunFolderError`` for a folder that
    is no run's, ``HardwareError`` and ``OSError`` for a calibration that cannot be made or kept.
    """
    run = read_run(folder)
    source = model or str(((run.report.requirement or {}).get("model") or {}).get("source") or "")
    reason = _teaches_nothing(run, source)
    if reason is not None:
        return Remembered(None, reason)
    from setpoint.loop.calibrating import steps_document

    origin = provenance_of(folder, run, source)
    older = past_calibration(source)
    if older is not None and origin.steps < ENOUGH_SHARE * older.provenance.steps and older.provenance.run != origin.run:
        return Remembered(None, f"{origin.steps} steps are few beside those of {older.words()}, which is kept")
    document = steps_document(run, source, THIS_MACHINE, origin)
    from setpoint.hardware.calibrations import save

    keep_evidence(str(document["name"]), run)
    save(str(document["name"]), document)
    error = float(document["relative_error"])
    return Remembered(str(document["name"]), f"learned step times from {origin.steps} steps, error {error:.0%}")


def provenance_of(folder: Path, run: Run, model: str) -> Provenance:
    """Where a calibration from the run in ``folder`` comes from. The run has steps."""
    assert run.steps is not None
    ended = run.run_info.get("ended_unix_s")
    ended_s = float(ended) if isinstance(ended, int | float) else (folder / REQUESTS_FILE).stat().st_mtime
    return Provenance(
        run=run_id(folder),
        folder=str(folder.resolve()),
        measured=datetime.fromtimestamp(ended_s, UTC).isoformat(timespec="seconds"),
        machine=fingerprint_of(run.report.machine),
        engine_version=engine_version_of(run.report.machine.get("versions") or run.report.machine),
        model=model,
        model_hash=model_hash(model),
        steps=run.steps.num_rows,
    )


def model_hash(source: str) -> str | None:
    """Of the weights that ``source`` names on this machine; ``None`` where nothing is at hand (a hub's repository)."""
    from setpoint.engine.models import DEMO_MODEL, ModelNotFound, demo_file, file_fingerprint

    try:
        path = demo_file() if source == DEMO_MODEL else Path(source).expanduser()
        if path.is_dir():
            path = path / "openvino_model.bin"
        return file_fingerprint(path) if path.is_file() else None
    except (ModelNotFound, OSError):
        return None


def keep_evidence(name: str, run: Run) -> None:
    """The last ``MOST_ROWS`` rows of each table beside the calibration ``name``. Raises ``OSError``."""
    folder = own_folder() / name
    folder.mkdir(parents=True, exist_ok=True)
    tables = {STEPS_FILE: run.steps, REQUESTS_FILE: run.requests, DECISIONS_FILE: run.decisions}
    for file, table in tables.items():
        if table is None:
            (folder / file).unlink(missing_ok=True)
            continue
        light = table.drop_columns([column for column in HEAVY_COLUMNS if column in table.column_names])
        partial = folder / f".{file}.{os.getpid()}"
        pq.write_table(light.slice(max(0, light.num_rows - MOST_ROWS)), partial, compression="zstd")
        partial.replace(folder / file)


def _rows_of(table: pa.Table, candidate: str) -> pa.Table:
    return table.filter(pc.equal(table["candidate"], candidate))


def _other_machine(found: Provenance, machine: str) -> str | None:
    return None if found.machine == machine else f"it was measured on another machine ({found.machine})"


def threads_words(run: Run) -> str | None:
    """Why steps of ``run`` say nothing of the machine where a candidate set its threads, ``None`` where none did."""
    for candidate in run.report.candidates:
        if candidate.measured is not None and candidate.config.get("threads") is not None:
            return f"{candidate.name} computed on {candidate.config['threads']} threads; step times are kept for all cores only"
    return None


def _teaches_nothing(run: Run, source: str) -> str | None:
    """Why nothing is learned from ``run``, ``None`` if something may be."""
    if run.steps is None or run.steps.num_rows == 0:
        return "it has no steps; only runs of setpoint's own engine have them"
    if run.steps.num_rows < LEAST_STEPS:
        return f"it has {run.steps.num_rows} steps; at least {LEAST_STEPS} are needed"
    if not run.report.validity.valid:
        return "it is invalid: " + "; ".join(run.report.validity.reasons)
    bound = threads_words(run)
    if bound is not None:
        return bound
    machine = fingerprint_of(run.report.machine)
    if machine != here():
        return f"it was measured on another machine ({machine})"
    try:
        model_facts(source)
    except HardwareError as error:
        return f"its model is not known: {error}"
    return None


def remember_quietly(folder: Path, say: Callable[[str], None]) -> None:
    """``remember`` at the end of a command, which it never fails: what went wrong is one line."""
    try:
        done = remember(folder)
    except (RunFolderError, HardwareError, OSError, ValueError) as error:
        say(f"nothing was learned from this run for the next: {str(error).splitlines()[0]}")
        return
    if done.name is not None:
        say(f"{done.words}; the next tune, plan and simulate on this machine begin with that")
