"""Encoding of long texts off the interpreter lock, where that gives the tokens the model's tokenizer would give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from setpoint.engine.openvino.encoder import FreeEncoder
from setpoint.engine.request import InvalidRequest

LONG_CHARACTERS = 4096
SAMPLES = ("a", "The quick brown fox, naïve café\n\t 12,345 日本語 😀", "x  y <|im_end|> z")


class LongTexts:
    """``encode(text, special)`` for long texts. ``prefix`` and ``suffix``: what the file adds that a plain encoding lacks."""

    def __init__(self, encoder: FreeEncoder, prefix: list[int], suffix: list[int]) -> None:
        self._encoder = encoder
        self._prefix = prefix
        self._suffix = suffix

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids, with the special tokens around them or without. Raises ``InvalidRequest`` for a NUL at the end.

        Arrays of strings drop it, and the other way would hold the lock.
        """
        if text.endswith("\0"):
            raise InvalidRequest("a long text ends in a NUL character: leave it out", "")
        ids = self._encoder.encode(text)
        return ids if add_special_tokens else ids[len(self._prefix) : len(ids) - len(self._suffix)]


def long_texts(folder: Path, encode: Callable[[str, bool], list[int]]) -> LongTexts | None:
    """An encoder that agrees with ``encode(text, add_special_tokens)`` on samples, or ``None``."""
    try:
        encoder = FreeEncoder(folder)
        found = encoder.encode(SAMPLES[0])
    except (ImportError, RuntimeError):
        return None
    plain = encode(SAMPLES[0], False)
    start = next((i for i in range(len(found) - len(plain) + 1) if found[i : i + len(plain)] == plain), None)
    if start is None:
        return None
    texts = LongTexts(encoder, found[:start], found[start + len(plain) :])
    agrees = all(
        texts.encode(sample, add_special_tokens=special) == encode(sample, special)
        for sample in SAMPLES
        for special in (True, False)
    )
    return texts if agrees else None
