"""The input as a whole: checked before anything is sent, then known by a hash of each line and whether it is answered.

A million lines take some 40 MB, and 100 MB while they are checked: texts stay in the file and are read again when their
turn comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from setpoint.loop.errors import BadInput
from setpoint.loop.offline.request_line import (
    DIGEST_BYTES,
    BatchRequest,
    LineError,
    digest_of,
    parse_line,
    read_lines,
)

REQUESTS_MAX = 10_000_000
MODELS_MAX = 64

Digests = NDArray[np.bytes_]


class InputIndex:
    """The requests of a batch file by position (blank lines not counted), each answered or not.

    models: the names asked for, in order; ``None`` among them stands for requests that name none.
    """

    def __init__(self, path: Path, digests: bytes, models: Sequence[str | None]) -> None:
        self.path = path
        self.models = tuple(models)
        self._digests = digests
        sorted_from = _as_rows(digests)
        self._order = np.argsort(sorted_from, kind="stable")
        self._sorted = sorted_from[self._order]
        self._answered = bytearray(len(self))

    def __len__(self) -> int:
        return len(self._digests) // DIGEST_BYTES

    @property
    def left(self) -> int:
        """How many requests have no answer yet."""
        return self._answered.count(0)

    def position_of(self, digest: bytes) -> int | None:
        """Which request has this digest."""
        place = int(np.searchsorted(self._sorted, np.array(digest, dtype=self._sorted.dtype)))
        if place == len(self) or self.digest(found := int(self._order[place])) != digest:
            return None
        return found

    def digest(self, position: int) -> bytes:
        """The digest of the request at ``position``."""
        return self._digests[position * DIGEST_BYTES : (position + 1) * DIGEST_BYTES]

    def answered(self, position: int) -> bool:
        """Whether the request has its answer."""
        return bool(self._answered[position])

    def mark_answered(self, position: int) -> None:
        """The request has its answer."""
        self._answered[position] = 1

    def unanswered(self) -> Iterator[tuple[int, BatchRequest]]:
        """The requests without an answer, read again from the file. Raises ``BadInput`` if it is not what was checked."""
        position = -1
        for number, line in read_lines(self.path):
            position += 1
            if position < len(self) and self._answered[position]:
                continue
            if position >= len(self) or digest_of(line) != self.digest(position):
                raise BadInput(f"{self.path}: line {number}: changed while the batch ran; run the command again")
            yield position, parse_line(self.path, number, line)
        if position + 1 < len(self):
            raise BadInput(f"{self.path}: became shorter while the batch ran; run the command again")


def read_input(path: Path) -> InputIndex:
    """Check the whole file. Raises ``BadInput`` that names the first line and field that cannot be sent."""
    _require_file(path)
    digests, names, numbers = bytearray(), bytearray(), bytearray()
    models: dict[str | None, None] = {}
    for number, line in read_lines(path):
        request = parse_line(path, number, line)
        if request.model not in models:
            if len(models) == MODELS_MAX:
                raise LineError(path, number, "body.model", f"more than {MODELS_MAX} different models; split the file")
            models[request.model] = None
        digests += digest_of(line)
        names += digest_of(request.custom_id.encode("utf-8", "surrogatepass"))
        numbers += number.to_bytes(8, "little")
        if len(digests) > REQUESTS_MAX * DIGEST_BYTES:
            raise LineError(path, number, "the line", f"more than {REQUESTS_MAX} requests; split the file")
    if not digests:
        raise BadInput(f"{path}: found no request; each line is to be one")
    _refuse_repeated(path, _as_rows(bytes(names)), np.frombuffer(bytes(numbers), dtype="<i8"))
    return InputIndex(path, bytes(digests), tuple(models))


def _as_rows(digests: bytes) -> Digests:
    """Shape (requests,). NumPy drops zeros at the end of such values, all alike, which keeps equality and gives an order."""
    return np.frombuffer(digests, dtype=f"S{DIGEST_BYTES}")


def _refuse_repeated(path: Path, names: Digests, numbers: NDArray[np.int64]) -> None:
    order = np.argsort(names, kind="stable")
    again = np.flatnonzero(names[order][1:] == names[order][:-1])
    if len(again):
        earliest = again[np.argmin(numbers[order[again + 1]])]
        first, second = int(numbers[order[earliest]]), int(numbers[order[earliest + 1]])
        raise LineError(path, second, "custom_id", f"found that of line {first} again; give each request its own")


def _require_file(path: Path) -> None:
    if not path.exists():
        raise BadInput(f"{path}: no such file; give a file of requests, one JSON object a line")
    if not path.is_file():
        raise BadInput(f"{path}: not a regular file; it is read twice, so save the requests to a file")
