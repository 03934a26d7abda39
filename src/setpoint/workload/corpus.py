"""One long text of sentences, written once a process, from which prompts are cut: cutting is cheaper than writing.

Where a cut begins follows from a key; what makes prompts different from their first word on is the topic put before it.
A piece is a word with its leading space, or a full stop.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import count, islice
from random import Random

import numpy as np

from setpoint.workload.words import sentence_pieces

STARTS = 1 << 15
"""Cuts begin at sentences within the first so many pieces; the text grows with the longest cut."""

_SEED = 20_231_116
_GROWTH = 1 << 15
_MASK = (1 << 64) - 1


class Corpus:
    """An endless text, the same in every process, written as far as it was needed."""

    def __init__(self) -> None:
        self._source = sentence_pieces(Random(_SEED))
        self.pieces: list[str] = []
        self._text = ""
        self._piece_starts = np.zeros(1, dtype=np.int64)
        self._word_starts = np.zeros(0, dtype=np.int64)
        self._words_before = np.zeros(1, dtype=np.int64)
        self._sentences: list[int] = []
        self._grow(STARTS)
        stops = [index + 1 for index, piece in enumerate(self.pieces[: STARTS - 1]) if piece == "."]
        self._sentences = [0, *stops]

    def start(self, *key: int) -> int:
        """The piece that begins a sentence which ``key`` stands for."""
        return self._sentences[mixed(*key) % len(self._sentences)]

    def cut(self, start: int, pieces: int) -> str:
        """The text of ``pieces`` pieces from piece ``start`` on."""
        self._grow(start + pieces)
        return self._text[self._piece_starts[start] : self._piece_starts[start + pieces]]

    def cut_words(self, start: int, words: int) -> str:
        """The text from piece ``start`` on that has ``words`` words, and the full stop after the last if there is one."""
        self._grow(start + 2 * words + 2)
        first = int(self._words_before[start])
        return self._text[self._piece_starts[start] : self._word_starts[first + words]]

    def pieces_from(self, start: int) -> Iterator[str]:
        """Every piece from ``start`` on, without an end."""
        for index in count(start):
            self._grow(index + 1)
            yield self.pieces[index]

    def _grow(self, pieces: int) -> None:
        """Write on until there are ``pieces`` pieces."""
        missing = pieces - len(self.pieces)
        if missing <= 0:
            return
        new = list(islice(self._source, -(-missing // _GROWTH) * _GROWTH))
        self.pieces += new
        self._text += "".join(new)
        lengths = np.fromiter(map(len, new), dtype=np.int64, count=len(new))
        self._piece_starts = np.concatenate([self._piece_starts, self._piece_starts[-1] + np.cumsum(lengths)])
        are_words = np.fromiter((piece != "." for piece in self.pieces), dtype=bool, count=len(self.pieces))
        self._word_starts = self._piece_starts[:-1][are_words]
        self._words_before = np.concatenate([[0], np.cumsum(are_words)])


@cache
def the_corpus() -> Corpus:
    """The text of this process."""
    return Corpus()


def mixed(*key: int) -> int:
    """64 bits that look random and follow from ``key`` alone (the finalizer of SplitMix64, once for each number)."""
    state = 0
    for number in key:
        state = (state + (number & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state
