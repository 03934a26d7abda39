"""Measurements kept in the run folder as they end, so that a tuning that was cut short can go on.

``measured/NN-NAME`` is a run folder of its own (``report/files.py``). What it was made for is in its ``run.json``: requirement,
seed, schedule, configuration, machine, versions and a digest of setpoint's own sources. One that was made for anything else
is not taken up again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from setpoint.loop.measured import MeasuredRun
from setpoint.loop.schedule import Schedule
from setpoint.loop.tuning.trial import Trial
from setpoint.loop.writing import circumstances, versions
from setpoint.policy.configuration import ServingConfig
from setpoint.record import Report
from setpoint.report.files import MEASURED_FOLDER, Run, RunFolderError, read_run, write_run
from setpoint.requirement import Requirement

MOST_KEPT = 64
SAME = ("requirement", "seed", "schedule", "versions", "sources")


class Keeper:
    """Keeps trials under ``folder``, one a folder, and finds those of the same question again."""

    def __init__(self, folder: Path, requirement: Requirement, schedule: Schedule, seed: int) -> None:
        self.folder = folder / MEASURED_FOLDER
        self.question: dict[str, Any] = {
            "requirement": requirement.model_dump(mode="json"),
            "seed": seed,
            "schedule": asdict(schedule),
            "versions": versions(),
            "sources": sources_digest(),
        }

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
        for folder in sorted(self.folder.glob("*/report.json"))[:MOST_KEPT]:
            try:
                run = read_run(folder.parent)
            except RunFolderError as error:
                say(f"{folder.parent.name} is not taken up again: {error}")
                continue
            trial = _trial(run)
            other = [name for name in SAME if run.run_info.get(name) != self.question[name]]
            if trial is None or space.get(trial.name) != trial.config:
                other.append("configurations")
            if other or trial is None:
                say(f"{folder.parent.name} is not taken up again: it was measured with other {', '.join(other)}")
                continue
            found.append(trial)
        return found


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
