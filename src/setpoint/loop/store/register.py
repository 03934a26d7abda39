"""A run into the index: at the end of every command that writes one, and of whole folders of runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from setpoint.loop.errors import BadInput
from setpoint.loop.store.entry import Entry, entry_of
from setpoint.loop.store.index import RunIndex, readable
from setpoint.report.files import MEASURED_FOLDER, REPORT_FILE

MOST_VISITED = 200_000
NEVER = {"node_modules", "__pycache__", "site-packages"}


@dataclass(slots=True)
class Reindexed:
    """What a walk found: runs, how many of them are new, and folders that cannot be read with the reason."""

    runs: int = 0
    new: int = 0
    refused: list[tuple[Path, str]] = field(default_factory=list)


def register_quietly(folder: Path, say: Callable[[str], None]) -> None:
    """Put the run in ``folder`` into the index. The run is written by then and stands: whatever fails here is one line."""
    try:
        RunIndex(say=say).add([entry_of(folder)])
    except Exception as error:
        say(f"this run is not in the index of runs: {str(error).splitlines()[0] if str(error) else type(error).__name__}")


def reindex(index: RunIndex, root: Path) -> Reindexed:
    """Put every run below ``root`` into ``index``. Raises ``BadInput`` if ``root`` is no folder."""
    if not root.is_dir():
        raise BadInput(f"--reindex {root}: is no folder; name one that holds run folders")
    done = Reindexed()
    entries: list[Entry] = list(readable(run_folders(root), lambda folder, why: done.refused.append((folder, why))))
    done.runs, done.new = len(entries), index.add(entries)
    return done


def run_folders(root: Path) -> Iterator[Path]:
    """Folders below ``root`` with a ``report.json``, in the order of their names; links are not followed."""
    for visited, (folder, below, files) in enumerate(os.walk(root)):
        if visited >= MOST_VISITED:
            raise BadInput(f"--reindex {root}: more than {MOST_VISITED} folders; name one further down")
        below[:] = sorted(name for name in below if not name.startswith(".") and name not in NEVER)
        if REPORT_FILE in files:
            # What tune measured on its way is part of its run.
            below[:] = [name for name in below if name != MEASURED_FOLDER]
            yield Path(folder)
