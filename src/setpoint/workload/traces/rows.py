"""Reading a file row by row in bounded memory, with an account of the rows that are no use."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from setpoint.workload.traces.trace import MAX_ROWS, Blocks, Trace, TraceError

MAX_LINE_CHARS = 1 << 20
MAX_BAD_SHARE = 0.05
BAD_ROWS_SHOWN = 3
MAX_TOKENS = 1_000_000
MAX_BLOCKS = 50_000_000


class BadRow(ValueError):
    """A row cannot be used; the message says why."""


@dataclass
class RowLog:
    """Counts rows; ``what`` is what the file calls them: row, line or conversation, and numbers them from 1."""

    path: Path
    what: str = "line"
    read: int = 0
    bad: list[str] = field(default_factory=list)
    bad_count: int = 0
    failed: int = 0
    more: bool = False

    def note_bad(self, number: int, reason: str) -> None:
        """A row is left out because it cannot be read."""
        self.read += 1
        self.bad_count += 1
        if len(self.bad) < BAD_ROWS_SHOWN:
            self.bad.append(f"{self.what} {number}: {reason}")

    def note_failed(self) -> None:
        """A row is left out because the request had no answer."""
        self.read += 1
        self.failed += 1

    def note_good(self) -> None:
        """A row is used."""
        self.read += 1

    def check(self) -> None:
        """Raises ``TraceError`` if nothing is left, or more than ``MAX_BAD_SHARE`` of the rows were bad."""
        if self.bad_count > MAX_BAD_SHARE * self.read:
            shown = "; ".join(self.bad)
            raise TraceError(
                f"{self.path}: {self.bad_count} of {self.read} {self.what}s cannot be read, allowed are "
                f"{MAX_BAD_SHARE:.0%} ({shown}): is the file whole, and of the format it seems to be?"
            )
        if self.read == self.bad_count + self.failed:
            reason = f"all {self.failed} requests in it failed" if self.failed else "it has a heading and no rows"
            raise TraceError(f"{self.path}: there is no request in it to replay ({reason})")

    def notes(self) -> list[str]:
        """What a user should know of the rows that were left out."""
        notes = []
        if self.bad_count:
            notes.append(f"{self.bad_count} of {self.read} {self.what}s were left out as unreadable ({'; '.join(self.bad)}).")
        if self.failed:
            notes.append(f"{self.failed} of {self.read} requests were left out: they have no output tokens, they failed.")
        if self.more:
            notes.append(f"Only the first {MAX_ROWS} requests were read; the file has more.")
        return notes


class Requests:
    """Collects requests into arrays, and makes the trace of them."""

    def __init__(self) -> None:
        self.times_s = array("d")
        self.prompt_tokens = array("q")
        self.output_tokens = array("q")
        self.block_numbers = array("q")
        self.block_sizes = array("q")
        self.block_starts = array("q", [0])

    @property
    def full(self) -> bool:
        """Whether no more should be added."""
        return len(self.prompt_tokens) >= MAX_ROWS or len(self.block_numbers) >= MAX_BLOCKS

    def add(self, time_s: float, prompt_tokens: int, output_tokens: int) -> None:
        """A request that is good."""
        self.times_s.append(time_s)
        self.prompt_tokens.append(prompt_tokens)
        self.output_tokens.append(output_tokens)

    def add_blocks(self, numbers: list[int], size: int) -> None:
        """The blocks of the request just added."""
        self.block_numbers.extend(numbers)
        self.block_sizes.extend([size] * len(numbers))
        self.block_starts.append(len(self.block_numbers))

    def trace(self, log: RowLog, format: str, notes: tuple[str, ...] = ()) -> Trace:
        """The trace, in order of arrival and from time 0. Raises ``TraceError`` as ``RowLog.check``."""
        log.check()
        times_s = np.array(self.times_s)
        order = np.argsort(times_s, kind="stable")
        early = int((np.diff(times_s) < 0).sum())
        all_notes = (*log.notes(), *([f"{early} rows were not in order of time; they were put in order."] if early else []))
        return Trace(
            name=str(log.path),
            format=format,
            prompt_tokens=np.array(self.prompt_tokens, dtype=np.int64)[order],
            output_tokens=np.array(self.output_tokens, dtype=np.int64)[order],
            times_s=times_s[order] - times_s[order[0]],
            blocks=self._blocks(order),
            notes=(*all_notes, *notes),
        )

    def _blocks(self, order: np.ndarray) -> Blocks | None:
        if len(self.block_starts) == 1 or not self.block_numbers:
            return None
        starts = np.array(self.block_starts, dtype=np.int64)
        counts = np.diff(starts)[order]
        new_starts = np.concatenate([[0], np.cumsum(counts)])
        places = np.repeat(starts[:-1][order] - new_starts[:-1], counts) + np.arange(new_starts[-1])
        numbers = np.array(self.block_numbers, dtype=np.int64)[places]
        return Blocks(numbers, new_starts, np.array(self.block_sizes, dtype=np.int64)[places])


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers from 1, stripped; of a longer line the first ``MAX_LINE_CHARS`` chars.

    Lines without anything on them are left out. Raises ``TraceError`` for a file that cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
            number = 0
            while line := file.readline(MAX_LINE_CHARS):
                number += 1
                rest = line
                while len(rest) == MAX_LINE_CHARS and not rest.endswith("\n"):
                    rest = file.readline(MAX_LINE_CHARS)
                if line.strip():
                    yield number, line.strip() if len(line) < MAX_LINE_CHARS else line
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from error


def tokens_in(text: object, name: str, *, least: int = 0) -> int:
    """A number of tokens. Raises ``BadRow``."""
    try:
        number = float(text) if isinstance(text, str | int | float) and not isinstance(text, bool) else None
    except ValueError:
        number = None
    if number is None or number != number or not least <= number <= MAX_TOKENS or number != int(number):
        raise BadRow(f"{name} is {str(text)[:40]!r}, a whole number from {least} to {MAX_TOKENS} is needed")
    return int(number)
