"""The files of a run, taken away on demand: those that setpoint wrote and no others."""

from __future__ import annotations

from pathlib import Path

from setpoint.loop.errors import BadInput
from setpoint.loop.store.entry import Entry
from setpoint.loop.store.listing import State, state_of
from setpoint.plan.exports.files import EXPORTED
from setpoint.report.files import (
    DECISIONS_FILE,
    EXPORTS_FOLDER,
    MEASURED_FOLDER,
    REPORT_FILE,
    REQUESTS_FILE,
    RUN_FILE,
    SERVER_FILE,
    STEPS_FILE,
    TOKENS_FILE,
)

RUN_FILES = (
    REPORT_FILE,
    "report.html",
    RUN_FILE,
    REQUESTS_FILE,
    STEPS_FILE,
    SERVER_FILE,
    DECISIONS_FILE,
    TOKENS_FILE,
    "plan.json",
    "plan.html",
)


def delete_run(entry: Entry) -> None:
    """Delete the files of the run, and its folder if nothing else is in it. Raises ``BadInput`` if the folder holds another."""
    folder = Path(entry.folder)
    state = state_of(entry)
    if state is State.REPLACED:
        raise BadInput(f"{entry.id}: {folder} holds another run now; its files stay")
    if state is State.GONE:
        return
    for pattern in EXPORTED:
        for file in (folder / EXPORTS_FOLDER).glob(pattern):
            file.unlink(missing_ok=True)
    _remove_if_empty(folder / EXPORTS_FOLDER)
    if entry.kind == "tune":
        for measured in (folder / MEASURED_FOLDER).glob("[0-9][0-9]-*"):
            if measured.is_dir() and not measured.is_symlink():
                _delete_files(measured)
    _remove_if_empty(folder / MEASURED_FOLDER)
    _delete_files(folder)


def _delete_files(folder: Path) -> None:
    """Those of one run folder, and what of it is empty then."""
    for name in RUN_FILES:
        (folder / name).unlink(missing_ok=True)
    for log in (folder / "logs").glob("*.log"):
        log.unlink(missing_ok=True)
    _remove_if_empty(folder / "logs")
    _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
