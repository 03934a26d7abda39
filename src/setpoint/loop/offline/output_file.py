"""The output: one writer, whole lines, and a resume that trusts nothing but what is there.

Each result is one ``write`` to the end of the file, so a killed process loses nothing that it has written and leaves at most
one torn line, which is cut on resuming. ``sync`` makes what is written survive the machine's end too. Failures that may have
passed make room for new results: a copy without them takes the place of the file, whole and on the disk before it does. They
are held aside, in a file without a name, and those that nothing new came of are put back at the end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from setpoint.loop.errors import BadInput
from setpoint.loop.offline.input_index import InputIndex
from setpoint.loop.offline.result_line import LINE_BEGIN, read_result

CHUNK_BYTES = 1 << 20
OPEN_TRIES = 8
OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
RESULT_BYTES_MAX = 512 << 20
ANEW = "add --overwrite to start anew, or name another file"

_ROOM = "make room for a copy beside it"
_FOLDER = "let this user write in its folder"
_FIXES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EACCES: _FOLDER,
    errno.EPERM: _FOLDER,
    errno.EROFS: _FOLDER,
    errno.EBUSY: "mount its folder instead of the file alone",
}
_ELSEWHERE = "go on with a copy of it in another folder"


class CannotReplace(Exception):
    """No other file can take the place of the output, which can still be appended to. Says why and what to do."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an earlier run left: how many requests have ended for good, how many of them by errors, where whole lines end, and
    how many requests failed by what may have passed and are to be asked again.
    """

    answered: int
    failed: int
    end_bytes: int
    again: int = 0


class OutputFile:
    """The output file, locked while it is open. Raises ``BadInput`` if it cannot be had."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = not path.exists()
        self._descriptor = _open_locked(path)
        self._unsynced = False
        self._found: Found | None = None
        self._aside: IO[bytes] | None = None

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._made and not os.fstat(self._descriptor).st_size:
            self.path.unlink(missing_ok=True)  # Nothing came of it.
        os.close(self._descriptor)
        if self._aside is not None:
            self._aside.close()

    def keep(self, found: Found) -> None:
        """What was found is to stay, but for what is to be asked again; the file changes with ``begin``, not yet."""
        self._found = found

    def begin(self) -> int:
        """Take away what is not to stay: results follow. Gives how many failures went; again it does nothing.

        Raises ``CannotReplace`` if failures are to go and cannot; only what was torn is then gone.
        """
        found, self._found = self._found, None
        if found is None:
            return 0
        os.ftruncate(self._descriptor, found.end_bytes)
        if found.again:
            try:
                self._take_failures_out()
            except OSError as error:
                fix = _FIXES.get(error.errno or 0, _ELSEWHERE)
                raise CannotReplace(f"the file cannot be replaced ({error.strerror}); {fix}") from error
        return found.again

    def _take_failures_out(self) -> None:
        """Go on in a copy without the failures that may have passed. Raises ``OSError``; the file is then as it was."""
        place = self.path.resolve()
        with contextlib.ExitStack() as stack:
            aside = stack.enter_context(tempfile.TemporaryFile(dir=place.parent))
            copy = _put_copy(place, self._descriptor, aside.fileno())
            stack.pop_all()
        before, self._descriptor, self._aside = self._descriptor, copy, aside
        os.close(before)

    def put_back(self, index: InputIndex) -> int:
        """Write again the failures that were taken out and are not answered in ``index``; gives how many. Then there are none.

        Raises ``BadInput`` if the system does not take them.
        """
        if self._aside is None:
            return 0
        count = 0
        with self._aside as aside:
            self._aside = None
            for position, line in _passing(aside.fileno(), self.path, index):
                if not index.answered(position):
                    self.append(line)
                    count += 1
        self.sync()
        return count

    def settle(self, index: InputIndex) -> int:
        """Mark in ``index`` the failures that may have passed: they stay. Gives how many there are."""
        count = 0
        for position, _ in _passing(self._descriptor, self.path, index):
            index.mark_answered(position)
            count += 1
        return count

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
            descriptor = os.open(path, OPEN_FLAGS, 0o666)
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


def _put_copy(place: Path, locked: int, aside: int) -> int:
    """Put a copy in the place of a file, without the failures that may have passed, which go ``aside``. Both are open.

    Gives the copy open, and locked before it is there. A kill or a power cut leaves the one file or the other. Raises
    ``OSError`` if there can be no copy; the file is then as it was.
    """
    # Always the same name: who holds the lock is alone with it, and what a kill left of it goes.
    with _taking_the_place_of(place, place.with_name(f".{place.name}.anew"), 0o600) as copy:
        fcntl.flock(copy, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchmod(copy, stat.S_IMODE(os.fstat(locked).st_mode))
        _part(place, locked, copy, aside)
        os.fsync(copy)
    _sync_folder(place.parent)
    return copy


def _part(path: Path, locked: int, copy: int, aside: int) -> None:
    """Write the lines of ``locked`` to ``copy``, but failures that may have passed to ``aside``. All are open."""
    with (
        open(copy, "wb", buffering=CHUNK_BYTES, closefd=False) as staying,
        open(aside, "wb", buffering=CHUNK_BYTES, closefd=False) as going,
    ):
        for _, line in _lines_in(locked, path):
            written = read_result(line)
            (going if written is not None and written.may_pass else staying).write(line)


@contextlib.contextmanager
def _taking_the_place_of(place: Path, temporary: Path, mode: int) -> Iterator[int]:
    """A new file, open for appending, that takes the place of another at the end; if anything is raised it goes instead.

    What has the name ``temporary`` before goes, and if it is a link is not followed. Raises ``OSError``.
    """
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, OPEN_FLAGS | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        yield descriptor
        temporary.replace(place)
    except BaseException:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Make a new name survive the machine's end, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, each with where it begins in bytes; the last may lack its line end. Raises ``BadInput``."""
    with path.open("rb", buffering=CHUNK_BYTES) as stream:
        yield from _lines(stream, path)


def _lines_in(descriptor: int, path: Path) -> Iterator[tuple[int, bytes]]:
    """The same of a file that is open and stays so, whatever has its name by now."""
    with open(descriptor, "rb", buffering=CHUNK_BYTES, closefd=False) as stream:
        stream.seek(0)
        yield from _lines(stream, path)


def _lines(stream: IO[bytes], path: Path) -> Iterator[tuple[int, bytes]]:
    begin = 0
    while line := stream.readline(RESULT_BYTES_MAX):
        if len(line) == RESULT_BYTES_MAX:
            raise BadInput(f"{path}: a line is longer than any result; {ANEW}")
        yield begin, line
        begin += len(line)


def _passing(descriptor: int, path: Path, index: InputIndex) -> Iterator[tuple[int, bytes]]:
    """The failures in an open file that may have passed: the position of the request, and the line."""
    for _, line in _lines_in(descriptor, path):
        written = read_result(line)
        if written is not None and written.may_pass:
            position = index.position_of(written.digest)
            assert position is not None
            yield position, line


def resume(path: Path, index: InputIndex) -> Found:
    """Mark in ``index`` what the output answers already; failures that may pass are not marked. Changes no file.

    A last line without its end was torn when an earlier run was killed; it does not count. Raises ``BadInput`` if the output
    is not the beginning of this input's.
    """
    again = bytearray(len(index))
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
        if index.answered(position) or again[position]:
            raise BadInput(f"{path}: line {number}: answers a request for the second time; {ANEW}")
        end = begin + len(line)
        if written.may_pass:
            again[position] = 1
            continue
        index.mark_answered(position)
        answered += 1
        failed += written.failed
    return Found(answered, failed, end, again.count(1))


def write_errors(output: Path, errors: Path) -> int:
    """Copy the output's errors to a file of their own, replaced as a whole; gives how many there are."""
    count = 0
    try:
        with (
            _taking_the_place_of(errors, errors.with_name(f".{errors.name}.{os.getpid()}"), 0o666) as copy,
            open(copy, "wb", buffering=CHUNK_BYTES, closefd=False) as stream,
        ):
            for _, line in lines_of(output):
                written = read_result(line)
                if written is not None and written.failed:
                    stream.write(line)
                    count += 1
        os.close(copy)
    except OSError as error:
        raise BadInput(f"--errors {errors}: cannot be written: {error.strerror}; name another file") from error
    return count
