"""The output: one writer, whole lines, and a resume that trusts nothing but what is there.

Each result is one ``write`` to the end of the file, so a killed process loses nothing that it has written and leaves at most
one torn line, which is cut on resuming. ``sync`` makes what is written survive the machine's end too.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from setpoint.loop.errors import BadInput
from setpoint.loop.offline.input_index import InputIndex
from setpoint.loop.offline.result_line import LINE_BEGIN, read_result

CHUNK_BYTES = 1 << 20
OPEN_TRIES = 8
RESULT_BYTES_MAX = 512 << 20
ANEW = "add --overwrite to start anew, or name another file"


@dataclass(frozen=True, slots=True)
class Found:
    """What an earlier run left: how many requests are answered, how many of them are errors, and where whole lines end."""

    answered: int
    failed: int
    end_bytes: int


class OutputFile:
    """The output file, locked while it is open. Raises ``BadInput`` if it cannot be had."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = not path.exists()
        self._descriptor = _open_locked(path)
        self._unsynced = False
        self._end_bytes: int | None = None

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._made and not os.fstat(self._descriptor).st_size:
            self.path.unlink(missing_ok=True)  # Nothing came of it.
        os.close(self._descriptor)

    def keep(self, end_bytes: int) -> None:
        """Only so many bytes of what is there are to stay; the file changes with ``begin``, not yet."""
        self._end_bytes = end_bytes

    def begin(self) -> None:
        """Cut what is not to stay: results follow. Again it does nothing."""
        if self._end_bytes is not None:
            os.ftruncate(self._descriptor, self._end_bytes)
            self._end_bytes = None

    def append(self, line: bytes) -> None:
        """Write one line, whole or not at all. Raises ``BadInput`` if the system does not take it."""
        before_bytes = os.fstat(self._descriptor).st_size
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            os.ftruncate(self._descriptor, before_bytes)
            fix = "make room and run the same command again to go on"
            raise BadInput(f"{self.path}: cannot be written: {error.strerror}; {fix}") from error
        self._unsynced = True

    def sync(self) -> None:
        """Return when what was written is on the disk. May take long; may run on another thread than ``append``."""
        if self._unsynced:
            self._unsynced = False
            os.fsync(self._descriptor)


def _open_locked(path: Path) -> int:
    for _ in range(OPEN_TRIES):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise BadInput(f"{path}: cannot be written: {error.strerror}; name another file") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            busy = "another run is writing it; wait for its end, or name another file"
            said = busy if isinstance(error, BlockingIOError) else f"cannot be locked: {error.strerror}"
            raise BadInput(f"{path}: {said}") from error
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # Whoever held the lock took the file away: try the one that is there now.
    raise BadInput(f"{path}: other runs make it and take it away; name another file")


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, each with where it begins in bytes; the last may lack its line end. Raises ``BadInput``."""
    with path.open("rb", buffering=CHUNK_BYTES) as stream:
        begin = 0
        while line := stream.readline(RESULT_BYTES_MAX):
            if len(line) == RESULT_BYTES_MAX:
                raise BadInput(f"{path}: a line is longer than any result; {ANEW}")
            yield begin, line
            begin += len(line)


def resume(path: Path, index: InputIndex) -> Found:
    """Mark in ``index`` what the output answers already. Changes no file.

    A last line without its end was torn when an earlier run was killed; it does not count. Raises ``BadInput`` if the output
    is not the beginning of this input's.
    """
    answered = failed = end = 0
    for number, (begin, line) in enumerate(lines_of(path), start=1):
        if not line.endswith(b"\n"):
            if not (LINE_BEGIN.startswith(line[: len(LINE_BEGIN)]) or line.startswith(LINE_BEGIN) or not line.strip(b"\0")):
                raise BadInput(f"{path}: line {number}: not a result of a batch; {ANEW}")
            break
        written = read_result(line)
        if written is None:
            raise BadInput(f"{path}: line {number}: not a result of a batch; {ANEW}")
        position = index.position_of(written.digest)
        if position is None:
            raise BadInput(f"{path}: line {number}: answers a request that is not in {index.path}; {ANEW}")
        if index.answered(position):
            raise BadInput(f"{path}: line {number}: answers a request for the second time; {ANEW}")
        index.mark_answered(position)
        answered += 1
        failed += written.failed
        end = begin + len(line)
    return Found(answered, failed, end)


def write_errors(output: Path, errors: Path) -> int:
    """Copy the output's errors to a file of their own, replaced as a whole; gives how many there are."""
    temporary = errors.with_name(f".{errors.name}.{os.getpid()}")
    count = 0
    try:
        with temporary.open("wb") as stream:
            for _, line in lines_of(output):
                written = read_result(line)
                if written is not None and written.failed:
                    stream.write(line)
                    count += 1
        temporary.replace(errors)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BadInput(f"--errors {errors}: cannot be written: {error.strerror}; name another file") from error
    return count
