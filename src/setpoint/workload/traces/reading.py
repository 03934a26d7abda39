"""Which format a trace has, found out from its first bytes, and the reader for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from setpoint.workload.traces import mooncake, sharegpt
from setpoint.workload.traces.own import read_own
from setpoint.workload.traces.token_csv import AZURE, BURSTGPT, heading_of
from setpoint.workload.traces.trace import Trace, TraceError

LOOK_BYTES = 1 << 20
SHOWN_CHARS = 60
SHOWN_KEYS = 8
OWN_FILE = "requests.parquet"

_READERS: dict[str, Callable[[Path], Trace]] = {
    "azure": AZURE.read,
    "mooncake": mooncake.read_mooncake,
    "burstgpt": BURSTGPT.read,
    "sharegpt": sharegpt.read_sharegpt,
    "setpoint": read_own,
}

FORMATS = tuple(_READERS)
"""What ``read_trace`` reads."""

ALLOWED = (
    "azure (CSV with TIMESTAMP, ContextTokens, GeneratedTokens), burstgpt (CSV with Timestamp, Request tokens, Response "
    "tokens), mooncake (JSON lines with timestamp, input_length, output_length, hash_ids), sharegpt (JSON conversations), "
    "setpoint (requests.parquet)"
)


def read_trace(path: Path | str, *, format: str | None = None) -> Trace:
    """The trace in a file, of one of ``FORMATS``; without ``format`` that is found out from what the file contains.

    Reads row by row: memory is bounded by the rows kept, at most ``MAX_ROWS``. Rows that cannot be read are counted and
    named in ``Trace.notes``. Raises ``TraceError`` for a file that is no trace, and if more than ``MAX_BAD_SHARE`` of its
    rows cannot be read. A run folder of setpoint stands for the ``requests.parquet`` in it.
    """
    file = Path(path)
    if (file / OWN_FILE).is_file():
        file = file / OWN_FILE
    if format is not None and format not in _READERS:
        raise TraceError(f"trace format {format}: there is no such format; allowed: {', '.join(FORMATS)}")
    head = _head(file)
    return _READERS[format or _format_of(file, head)](file)


def _head(path: Path) -> bytes:
    if path.is_dir():
        raise TraceError(f"{path}: a folder without {OWN_FILE}; a trace is a file: {ALLOWED}")
    try:
        with path.open("rb") as file:
            head = file.read(LOOK_BYTES)
    except FileNotFoundError:
        raise TraceError(f"{path}: there is no such file; a trace is one of {ALLOWED}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise TraceError(f"{path}: cannot be read: {reason}") from error
    if not head.strip():
        raise TraceError(f"{path}: an empty file; a trace is one of {ALLOWED}")
    return head


def _format_of(path: Path, head: bytes) -> str:
    if head.startswith(b"PAR1"):
        return "setpoint"
    if head.startswith((b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        raise _no_trace(path, "a compressed file; unpack it first")
    text = head.decode("utf-8-sig", "replace").lstrip()
    if "\0" in text[:SHOWN_CHARS]:
        raise _no_trace(path, "a binary file")
    if text.startswith("[") and text[1:].lstrip().startswith("{"):
        return "sharegpt"
    if text.startswith("{"):
        return _format_of_objects(path, text)
    line = text.split("\n", 1)[0].strip()
    heading = heading_of(line)
    for reader in (AZURE, BURSTGPT):
        if reader.matches(heading):
            return reader.format
    raise _no_trace(path, f"text that begins with {line[:SHOWN_CHARS]!r}")


def _format_of_objects(path: Path, text: str) -> str:
    try:
        row, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        raise _no_trace(path, f"broken JSON that begins with {text[:SHOWN_CHARS]!r}") from None
    if mooncake.matches(row):
        return "mooncake"
    if sharegpt.matches(row):
        return "sharegpt"
    raise _no_trace(path, f"JSON objects with the keys {', '.join(list(row)[:SHOWN_KEYS]) or '(none)'}")


def _no_trace(path: Path, found: str) -> TraceError:
    return TraceError(f"{path}: found {found}; a trace is one of {ALLOWED}")
