"""Finds text with a wanted number of tokens when all one can do is count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

MAX_TRIES = 40
MAX_FILLERS = 16

_FILLERS = (" a", " it", ".", "!", "a")


def fit_text(pieces: Iterator[str], tokens: int, count: Callable[[str], int], *, guess: int) -> tuple[str, int]:
    """Text made of the first ``pieces`` with ``count(text) == tokens``, or the longest found below, and its count.

    ``count`` must not fall as pieces are added. Starts at ``guess`` pieces, steps by the tokens that one piece has had
    so far, and closes in from both sides; a gap that no number of pieces fills is filled with very short words. Where
    even no piece at all is too much, the answer is the empty text and its count, which is then above ``tokens``.
    """
    drawn: list[str] = []

    def text_of(size: int) -> str:
        drawn.extend(islice(pieces, max(size - len(drawn), 0)))
        return "".join(drawn[:size])

    low, low_count = 0, -1
    high = 2 * max(tokens, 1) + 2
    size = guess
    for _ in range(MAX_TRIES):
        if high - low <= 1:
            break
        size = min(max(size, low + 1), high - 1)
        found = count(text_of(size))
        if found == tokens:
            return text_of(size), found
        low, low_count, high = (size, found, high) if found < tokens else (low, low_count, size)
        size += round((tokens - found) / max(found / size, 0.5)) or (1 if found < tokens else -1)
    text = text_of(low)
    return _filled(text, count(text) if low_count < 0 else low_count, tokens, count)


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many leading elements two sequences share."""
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))


def _filled(text: str, found: int, tokens: int, count: Callable[[str], int]) -> tuple[str, int]:
    """``text`` with short words added for as long as that brings its count nearer to ``tokens``."""
    for _ in range(MAX_FILLERS):
        if found >= tokens:
            break
        counts = ((filler, count(text + filler)) for filler in _FILLERS)
        step = next(((filler, longer) for filler, longer in counts if found < longer <= tokens), None)
        if step is None:
            break
        text, found = text + step[0], step[1]
    return text, found
