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


def encode_pieces(text: str) -> list[int]:
    """Like a byte-pair vocabulary that has all our words whole behind a space, but not at the beginning of a text."""
    tokens: list[int] = []
    for index, piece in enumerate(re.findall(r"<\|\w+\|>| ?\w+|\s|[^\w\s]", text)):
        parts = [piece] if index or piece.startswith("<") or len(piece) <= 5 else [piece[:5], piece[5:]]
        tokens += [zlib.crc32(part.encode()) for part in parts]
    return tokens


def encode_template(text: str) -> list[int]:
    """``encode_pieces`` inside a chat template whose end joins with a full stop."""
    tokens = encode_pieces(TEMPLATE[0] + text + TEMPLATE[1])
    return tokens[:-1] if text.endswith(".") else tokens


class Counting:
    """A tokenizer that counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, text: str) -> list[int]:
        self.calls += 1
        return encode_pieces(text)
