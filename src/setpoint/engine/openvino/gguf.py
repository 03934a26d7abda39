"""The little of a GGUF header that the converter does not pass on: the context length, what ends an answer, what is text.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (little-endian; header, then key-value pairs). A vocabulary
names one token that ends a text, and often others that end a turn or a message: by a key of their own, or only by the names
that are usual for it (``USUAL_ENDS``).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAGIC = b"GGUF"
SCALAR_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MOST_PAIRS = 4096
MOST_STRING_BYTES = 1 << 24
MOST_ITEMS = 1 << 24

CONTEXT = b".context_length"
TOKENS, KINDS = b"tokenizer.ggml.tokens", b"tokenizer.ggml.token_type"
END_KEYS = (b"tokenizer.ggml.eos_token_id", b"tokenizer.ggml.eot_token_id", b"tokenizer.ggml.eom_token_id")
CONTROL, USER_DEFINED = 3, 4
# Of control tokens.
USUAL_ENDS = frozenset(
    (b"<|im_end|>", b"<|endoftext|>", b"<|eot_id|>", b"<|eom_id|>", b"<|end_of_text|>", b"<end_of_turn>", b"<|return|>")
)

Value = int | float | bool | bytes | list[int | float] | list[bytes] | None


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What was found. end_ids: tokens that end an answer. spelled_ids: user-defined ones, which are text (the marks around a
    call of a tool, say). Both rise."""

    context_tokens: int | None = None
    end_ids: tuple[int, ...] = ()
    spelled_ids: tuple[int, ...] = ()


def read_header(file: Path) -> GgufHeader:
    """What the header of ``file`` says; nothing where it cannot be read."""
    try:
        with file.open("rb") as stream:
            return _header_of(_pairs(stream))
    except (OSError, struct.error, ValueError, RecursionError):
        return GgufHeader()


def _header_of(pairs: Mapping[bytes, Value]) -> GgufHeader:
    context = next((value for key, value in pairs.items() if key.endswith(CONTEXT) and type(value) is int and value > 0), None)
    tokens, kinds = pairs.get(TOKENS), pairs.get(KINDS)
    names = tokens if isinstance(tokens, list) else []
    of_kind: dict[int, list[int]] = {CONTROL: [], USER_DEFINED: []}
    for index, kind in enumerate(kinds if isinstance(kinds, list) else []):
        if kind in of_kind:
            of_kind[int(kind)].append(index)
    told = {value for key in END_KEYS if type(value := pairs.get(key)) is int and value >= 0}
    usual = {index for index in of_kind[CONTROL] if index < len(names) and names[index] in USUAL_ENDS}
    ends = told | usual
    return GgufHeader(context, tuple(sorted(ends)), tuple(each for each in of_kind[USER_DEFINED] if each not in ends))


def _pairs(stream: BinaryIO) -> dict[bytes, Value]:
    """The key-value pairs, as far as they can be read: a file may be cut short, or have what nobody knows yet."""
    if stream.read(4) != MAGIC:
        return {}
    _, _, count = struct.unpack("<IQQ", _exactly(stream, 20))
    found: dict[bytes, Value] = {}
    try:
        for _ in range(min(count, MOST_PAIRS)):
            key = _string(stream)
            (kind,) = struct.unpack("<I", _exactly(stream, 4))
            found[key] = _value(stream, kind)
    except (struct.error, ValueError, RecursionError):
        return found
    return found


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


def _value(stream: BinaryIO, kind: int) -> Value:
    if kind == STRING:
        return _string(stream)
    if kind == ARRAY:
        return _array(stream)
    layout = "<" + SCALAR_FORMATS[kind] if kind in SCALAR_FORMATS else None
    if layout is None:
        raise ValueError(f"unknown value kind {kind} in the header")
    value: int | float | bool = struct.unpack(layout, _exactly(stream, struct.calcsize(layout)))[0]
    return value


def _array(stream: BinaryIO) -> Value:
    """Its items, if they are strings or numbers."""
    kind, count = struct.unpack("<IQ", _exactly(stream, 12))
    if count > MOST_ITEMS:
        raise ValueError(f"an array of {count} items in the header")
    if kind in SCALAR_FORMATS:
        layout = f"<{count}{SCALAR_FORMATS[kind]}"
        return list(struct.unpack(layout, _exactly(stream, struct.calcsize(layout))))
    if kind == STRING:
        return [_string(stream) for _ in range(count)]
    for _ in range(count):
        _value(stream, kind)
    return None
