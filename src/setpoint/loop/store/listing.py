"""Which runs there are: where each stands today, filters, and the words a person names a run by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from setpoint.hardware.provenance import here
from setpoint.loop.errors import BadInput
from setpoint.loop.store.entry import INVALID, KINDS, Entry, run_id
from setpoint.loop.store.index import RunIndex
from setpoint.report.files import REPORT_FILE, RunFolderError
from setpoint.requirement import UnitError
from setpoint.requirement.units import parse_duration_s

VERDICTS = ("met", "missed", "inconclusive", INVALID)
LATEST, PREVIOUS, THIS_MACHINE = "latest", "previous", "this-machine"
SINCE = "a date such as 2026-11-02, or how long ago, such as 12h or 3d"
DAY_S = 86_400.0
LEAST_DIGITS = 3


class State(StrEnum):
    """What became of a run's folder: it is there, it holds another run now, or there is none any more."""

    HERE = "here"
    REPLACED = "replaced"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Filters:
    """What to list; ``None`` leaves out nothing. requirement: a name, a part of one, or a digest; machine: ``this-machine`` or
    a part of a fingerprint or of what was simulated; since_s: seconds since 1970."""

    requirement: str | None = None
    kind: str | None = None
    machine: str | None = None
    verdict: str | None = None
    since_s: float | None = None

    def holds(self, entry: Entry) -> bool:
        """Whether ``entry`` is wanted."""
        wanted = self.requirement
        return (
            (wanted is None or wanted in entry.name or wanted == entry.requirement)
            and (self.kind is None or entry.kind == self.kind)
            and (self.verdict is None or entry.verdict == self.verdict)
            and (self.since_s is None or entry.started_s >= self.since_s)
            and (self.machine is None or _on(entry, self.machine))
        )


def filters(
    requirement: str | None, kind: str | None, machine: str | None, verdict: str | None, since: str | None, now_s: float
) -> Filters:
    """The options of the command line. Raises ``BadInput`` naming the one that means nothing."""
    for name, value, allowed in (("kind", kind, KINDS), ("verdict", verdict, VERDICTS)):
        if value is not None and value not in allowed:
            raise BadInput(f"--{name} {value}: allowed are {', '.join(allowed)}")
    return Filters(requirement, kind, machine, verdict, None if since is None else since_s(since, now_s))


def since_s(text: str, now_s: float) -> float:
    """A date, or a moment so long ago, as seconds since 1970. Raises ``BadInput``."""
    try:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}.*", text):
            moment = datetime.fromisoformat(text)
            return (moment if moment.tzinfo else moment.astimezone()).timestamp()
        days = re.fullmatch(r"(\d+(?:\.\d+)?)\s*d", text.strip())
        return now_s - (float(days[1]) * DAY_S if days else parse_duration_s(text))
    except (UnitError, ValueError, OverflowError):
        raise BadInput(f"--since {text}: allowed: {SINCE}") from None


def state_of(entry: Entry) -> State:
    """What became of the folder of ``entry``."""
    folder = Path(entry.folder)
    if not (folder / REPORT_FILE).is_file():
        return State.GONE
    try:
        return State.HERE if run_id(folder) == entry.id else State.REPLACED
    except RunFolderError:
        return State.GONE


def found_run(index: RunIndex, word: str) -> Entry:
    """The run that ``word`` means: an id or its beginning, ``latest``, or ``previous``, the one before the latest of the same
    requirement and kind. Of the last two, only runs whose folder is there count. Raises ``BadInput``."""
    entries = index.entries()
    if word in (LATEST, PREVIOUS):
        there = (each for each in entries if state_of(each) is State.HERE)
        newest = next(there, None)
        if newest is None:
            raise BadInput(f"{word}: no run is known; fill the index with 'setpoint runs --reindex DIR'")
        if word == LATEST:
            return newest
        before = next((each for each in there if (each.name, each.kind) == (newest.name, newest.kind)), None)
        if before is None:
            raise BadInput(f"previous: no {newest.kind} of {newest.name} is known from before {newest.id}; see 'setpoint runs'")
        return before
    fitting = [each for each in entries if len(word) >= LEAST_DIGITS and each.id.startswith(word)]
    if len(fitting) != 1:
        found = f"{len(fitting)} runs begin with it" if fitting else "no run is called that"
        raise BadInput(f"{word}: {found}; 'setpoint runs' lists the ids")
    return fitting[0]


def folder_of(word: str) -> Path:
    """The folder of a run that is named by its folder, its id, ``latest`` or ``previous``. Raises ``BadInput``.

    What is a folder, or looks like a path, is taken as one; whether it holds a run is for the reader to see.
    """
    path = Path(word)
    named = word in (LATEST, PREVIOUS) or re.fullmatch(f"[0-9a-f]{{{LEAST_DIGITS},}}", word)
    if path.exists() or not named:
        return path
    from setpoint.loop.console import say

    entry = found_run(RunIndex(say=say), word)
    state = state_of(entry)
    if state is not State.HERE:
        lost = "holds another run now" if state is State.REPLACED else "is not there any more"
        raise BadInput(
            f"{word}: the folder of run {entry.id}, {entry.folder}, {lost}; if it was moved, 'setpoint runs --reindex DIR'"
        )
    return Path(entry.folder)


def lost(entries: Iterable[Entry]) -> list[Entry]:
    """Those whose folder is gone or holds another run."""
    return [each for each in entries if state_of(each) is not State.HERE]


def started(entry: Entry) -> str:
    """When it started, in UTC, to the minute."""
    return datetime.fromtimestamp(entry.started_s, UTC).strftime("%Y-%m-%d %H:%M")


def listed(entries: Sequence[Entry], wanted: Filters, most: int) -> list[tuple[Entry, State]]:
    """The first ``most`` runs that are wanted, each with what became of it."""
    chosen = [each for each in entries if wanted.holds(each)][:most]
    return [(each, state_of(each)) for each in chosen]


def _on(entry: Entry, machine: str) -> bool:
    if machine == THIS_MACHINE:
        return entry.machine == here()
    return machine.lower() in entry.machine.lower() or machine.lower() in entry.system.lower()
