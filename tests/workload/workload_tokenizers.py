"""Small tokenizers for tests, of the kinds there are: words with pieces, bytes, and words inside a chat template."""

from __future__ import annotations

import re
import zlib

TEMPLATE = ("<|user|>\n", "\n<|assistant|>\n")


def encode_words(text: str) -> list[int]:
    """Like a byte-pair vocabulary: a word with its space is one token, a long word two, a mark one."""
    tokens: list[int] = []
    for piece in re.findall(r"<\|\w+\|>| ?\w+|\s|[^\w\s]", text):
        parts = [piece] if len(piece) <= 8 or piece.startswith("<") else [piece[:6], piece[6:]]
        tokens += [zlib.crc32(part.encode()) for part in parts]
    return tokens


def encode_bytes(text: str) -> list[int]:
    """A token for every byte."""
    return list(text.encode())


def encode_chat(text: str) -> list[int]:
    """What a server computes that puts the text into a chat template and strips it first."""
    return encode_words(TEMPLATE[0] + text.strip() + TEMPLATE[1])
