"""Measurements kept in the run folder as they end, so that a tuning that was cut short can go on.

``measured/NN-NAME`` is a run folder of its own (``report/files.py``). What it was made for is in its ``run.json``: requirement,
seed, schedule, configuration, versions and a digest of setpoint's own sources; on what machine is in its ``report.json``. One
that was made for anything else, or on another machine, is not taken up again. The requirement's speculation does not count: it
says what is tried, and what guesses are worth in forecasts; what a server drafted with is in its configuration.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from setpoint.hardware.provenance import fingerprint_of, here
from setpoint.loop.measured import MeasuredRun
from setpoint.loop.schedule import Schedule
from setpoint.loop.tuning.trial import Trial
from setpoint.loop.writing import circumstances, versions
from setpoint.policy.configuration import ServingConfig
from setpoint.record import Report
from setpoint.report.files import MEASURED_FOLDER, Run, RunFolderError, read_run, write_run
from setpoint.requirement import Requirement

MOST_KEPT = 64


class AnotherQuestion(Exception):
    """A kept measurement does not answer what is asked now; the message says why."""


@dataclass(frozen=True, slots=True)
class SharedLoad:
    """What all measurements of a tuning share beside the requirement: the seed of the arrivals, and the phases."""

    seed: int
    schedule: Schedule


class Keeper:
    """Keeps trials under ``folder``, one a folder, and finds those of the same question again."""

    def __init__(self, folder: Path, requirement: Requirement, schedule: Schedule, seed: int) -> None:
        self.folder = folder / MEASURED_FOLDER
        self.question: dict[str, Any] = {**_asked(requirement), "seed": seed, "schedule": asdict(schedule)}

    def forget(self) -> None:
        """Take away what an earlier run kept here. Raises ``RunFolderError`` if it cannot be."""
        try:
            if self.folder.exists():
                shutil.rmtree(self.folder)
        except OSError as error:
            raise RunFolderError(f"{self.folder}: cannot be cleared ({error.strerror or error}); remove it") from error

    def keep(self, trial: Trial) -> None:
        """Write a trial. Raises ``RunFolderError``."""
        number = len(list(self.folder.glob("*/report.json"))) + 1
        run = trial.run
        report = Report(
            kind="measure",
            requirement=self.question["requirement"],
            machine=circumstances(),
            candidates=[run.candidate(trial.name, trial.config.model_dump(mode="json"))],
            chosen=None,
            why="",
            validity=run.validity,
        )
        info = {**self.question, "name": trial.name, "config": report.candidates[0].config, "wall_s": trial.wall_s}
        folder = self.folder / f"{number:02}-{trial.name}"
        write_run(folder, report, run.requests, run.steps, info, server=run.server_table, decisions=run.decisions)

    def kept(self, space: Mapping[str, ServingConfig], say: Callable[[str], None]) -> list[Trial]:
        """Trials of the same question over configurations of ``space``, in the order in which they were made.

        ``say`` hears of those that are not taken up, and why.
        """
        found: list[Trial] = []
        for folder in _kept_folders(self.folder):
            try:
                found.append(self._same(read_run(folder), space))
            except (RunFolderError, AnotherQuestion) as error:
                say(f"{folder.name} is not taken up again: {error}")
        return found

    def _same(self, run: Run, space: Mapping[str, ServingConfig]) -> Trial:
        """``run`` as a trial. Raises ``AnotherQuestion``."""
        _require_same(run, self.question)
        trial = _trial(run)
        if trial is None or space.get(trial.name) != trial.config:
            raise AnotherQuestion("it was measured with other configurations")
        return trial


def kept_load(folder: Path, requirement: Requirement) -> SharedLoad | None:
    """That of the measurements under ``folder`` which answer ``requirement``, with this code and on this machine.

    ``None`` if there are none. Those that do not, or cannot be read, are passed over: ``Keeper.kept`` says why.
    """
    asked = _asked(requirement)
    for each in _kept_folders(folder / MEASURED_FOLDER):
        try:
            run = read_run(each)
            _require_same(run, asked)
            return _load_of(run.run_info)
        except (RunFolderError, AnotherQuestion):
            continue
    return None


def _asked(requirement: Requirement) -> dict[str, Any]:
    """What decides, whatever the load, whether a measurement answers ``requirement``: names as in ``run.json``."""
    return {"requirement": requirement.model_dump(mode="json"), "versions": versions(), "sources": sources_digest()}


def _kept_folders(folder: Path) -> list[Path]:
    """The folders of complete measurements, in the order in which they were made."""
    return [file.parent for file in sorted(folder.glob("*/report.json"))[:MOST_KEPT]]


def _require_same(run: Run, question: Mapping[str, Any]) -> None:
    """Raises ``AnotherQuestion`` if ``run`` was made on another machine, or for something else than ``question``."""
    machine = fingerprint_of(run.report.machine)
    if machine != here():
        raise AnotherQuestion(f"it was measured on another machine ({machine}; this one is {here()})")
    made_for, asked = _measured_parts(run.run_info), _measured_parts(question)
    other = [name for name, value in asked.items() if made_for.get(name) != value]
    if other:
        raise AnotherQuestion(f"it was measured with other {', '.join(other)}")


def _measured_parts(question: Mapping[str, Any]) -> dict[str, Any]:
    """``question`` without what no measurement depends on (see the module)."""
    requirement = question.get("requirement")
    if not isinstance(requirement, Mapping):
        return dict(question)
    return {**question, "requirement": {name: value for name, value in requirement.items() if name != "speculation"}}


def _load_of(info: Mapping[str, Any]) -> SharedLoad:
    """The load that ``run.json`` names. Raises ``AnotherQuestion`` if it names none."""
    try:
        return SharedLoad(int(info["seed"]), Schedule(**info["schedule"]))
    except (KeyError, TypeError, ValueError):
        raise AnotherQuestion("its run.json names no seed and schedule") from None


def _trial(run: Run) -> Trial | None:
    entry = next(iter(run.report.candidates), None)
    if entry is None or entry.measured is None:
        return None
    measured = MeasuredRun(
        requests=run.requests,
        steps=run.steps,
        measured=entry.measured,
        slo=entry.slo,
        validity=run.report.validity,
        client=entry.client,
        server=entry.server,
        server_table=run.server,
        decisions=run.decisions,
    )
    try:
        config = ServingConfig.model_validate(entry.config)
    except ValidationError:  # of another version
        return None
    return Trial(entry.name, config, measured, float(run.run_info.get("wall_s", 0.0)), resumed=True)


@cache
def sources_digest() -> str:
    """Of every Python file of the package: a measurement of other code is another measurement."""
    digest = hashlib.sha256()
    for name, file in sorted(_python_files(resources.files("setpoint"), "")):
        digest.update(name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _python_files(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for each in folder.iterdir():
        name = f"{prefix}/{each.name}"
        if each.is_dir():
            found += _python_files(each, name)
        elif each.name.endswith(".py"):
            found.append((name, each))
    return found
