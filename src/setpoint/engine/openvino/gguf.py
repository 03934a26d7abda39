"""The little of a GGUF header that the converter does not pass on: the context length.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (little-endian; header, then key-value pairs).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

MAGIC = b"GGUF"
SCALAR_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MOST_PAIRS = 4096
MOST_STRING_BYTES = 1 << 24
MOST_ITEMS = 1 << 24


def context_tokens(file: Path, *, default: int) -> int:
    """``<architecture>.context_length`` of ``file``, or ``default`` if the header has none or cannot be read."""
    try:
        with file.open("rb") as stream:
            return _find_context(stream, default)
    except (OSError, struct.error, ValueError, RecursionError):
        return default


def _find_context(stream: BinaryIO, default: int) -> int:
    if stream.read(4) != MAGIC:
        return default
    _, _, pairs = struct.unpack("<IQQ", _exactly(stream, 20))
    for _ in range(min(pairs, MOST_PAIRS)):
        key = _string(stream)
        (kind,) = struct.unpack("<I", _exactly(stream, 4))
        value = _value(stream, kind)
        if key.endswith(b".context_length") and type(value) is int and value > 0:
            return value
    return default


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise ValueError("the file ends inside its header")
    return data


def _string(stream: BinaryIO) -> bytes:
    (length,) = struct.unpack("<Q", _exactly(stream, 8))
    if length > MOST_STRING_BYTES:
        raise ValueError(f"a string of {length} bytes in the header")
    return _exactly(stream, length)


def _value(stream: BinaryIO, kind: int) -> int | float | bool | None:
    if kind == STRING:
        _string(stream)
        return None
    if kind == ARRAY:
        item_kind, count = struct.unpack("<IQ", _exactly(stream, 12))
        if count > MOST_ITEMS:
            raise ValueError(f"an array of {count} items in the header")
        if item_kind in SCALAR_FORMATS:
            _exactly(stream, count * struct.calcsize("<" + SCALAR_FORMATS[item_kind]))
        else:
            for _ in range(count):
                _value(stream, item_kind)
        return None
    layout = "<" + SCALAR_FORMATS[kind] if kind in SCALAR_FORMATS else None
    if layout is None:
        raise ValueError(f"unknown value kind {kind} in the header")
    value: int | float | bool = struct.unpack(layout, _exactly(stream, struct.calcsize(layout)))[0]
    return value
