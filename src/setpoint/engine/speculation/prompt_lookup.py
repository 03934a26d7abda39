"""Prompt lookup: what followed the last few tokens when they stood in the request's own text before.

Source: prompt lookup decoding (Saxena, 2023) and n-gram speculation as vLLM has it. It costs some microseconds and pays where
answers repeat what is in the prompt or in themselves: code that is edited, forms that are filled, texts that are quoted.

Each n-gram's latest place is kept in an index that reads every token once. Beside it stands the place that the last guess came
from: whichever agrees with the text over more tokens is followed, the later one if they agree equally far. If neither agrees
over two tokens, the place of the last guess is kept for ``MOST_MISSES`` guesses: in a form one word differs and all else goes
on as before. Where a guess runs into the end of the text it goes on with itself, which is right for all that is periodic.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import Final

from setpoint.engine.sequence import Sequence
from setpoint.engine.speculation.draft import NOTHING, Draft, Outlook

GRAMS: Final = (4, 3, 2, 1)
LONGEST_MATCH: Final = 16
# A guess's class by how many tokens agree before it: one at most, 2 or 3, 4 to 7, more.
SURE_FROM: Final = (2, 4, 8)
KEPT_FROM: Final = 4
MOST_MISSES: Final = 2
# Tokens indexed a call: a long prompt takes several steps, for its reading would hold up everybody's.
MOST_READ: Final = 2048


class LookupIndex:
    """The n-grams of one growing text. ``place``: the token that the next guess goes on from, -1 if there is none."""

    __slots__ = ("_ends", "_length", "_misses", "_read", "place")

    def __init__(self) -> None:
        self._ends: dict[tuple[int, ...], int] = {}
        self._read = 0
        self._length = 0
        self._misses = MOST_MISSES
        self.place = -1

    def find(self, tokens: list[int]) -> int:
        """Look for the end of ``tokens`` earlier in them: how many tokens agree, the last of them at ``place``.

        0: none do; there may be a ``place`` to go on from nevertheless. ``tokens`` must begin with those of the call before.
        Lengths above ``LONGEST_MATCH`` are not told apart.
        """
        last = len(tokens) - 1
        self._take_in(tokens, last)
        kept = self.place + len(tokens) - self._length if self.place >= 0 else -1
        ends = [kept] if kept >= 0 else []
        self._length = len(tokens)
        for size in GRAMS:
            end = self._ends.get(tuple(tokens[-size:])) if last >= size else None
            if end is not None:
                ends.append(end)
                break
        best, self.place = 0, -1
        for end in ends:
            length = _agreement(tokens, end)
            if length and (length, end) > (best, self.place):
                best, self.place = length, end
        if best >= KEPT_FROM:
            self._misses = 0
        elif best < 2 and kept >= 0 and self._misses < MOST_MISSES:
            self._misses += 1
            self.place = kept
            return int(tokens[kept] == tokens[last])
        return best

    def _take_in(self, tokens: list[int], end: int) -> None:
        """Index the n-grams that end before position ``end``, ``MOST_READ`` at most: not the one whose earlier places are asked
        for."""
        ends, end = self._ends, min(end, self._read + MOST_READ)
        for position in range(self._read, end):
            for size in GRAMS:
                if position + 1 >= size:
                    ends[tuple(tokens[position + 1 - size : position + 1])] = position
        self._read = max(self._read, end)


class PromptLookup:
    """A ``Drafter``. ``most_tokens``: longest draft."""

    def __init__(self, *, most_tokens: int) -> None:
        self._most_tokens = most_tokens
        self._indices: dict[int, LookupIndex] = {}

    def outlook(self, sequence: Sequence) -> Outlook:
        """A match, if there is one, and how long it is."""
        index = self._indices.get(sequence.sequence_id)
        if index is None:
            index = self._indices[sequence.sequence_id] = LookupIndex()
        length = index.find(sequence.tokens)
        if index.place < 0:
            return NOTHING
        return Outlook(self._most_tokens, sum(length >= bound for bound in SURE_FROM))

    def propose(self, asked: Items[tuple[Sequence, int]]) -> list[Draft | None]:
        """What followed the match that ``outlook`` found; it must have been asked about the same text."""
        drafts: list[Draft | None] = []
        for sequence, count in asked:
            index = self._indices.get(sequence.sequence_id)
            found = index is not None and index.place >= 0
            drafts.append(Draft(continuation(sequence.tokens, index.place, count)) if index is not None and found else None)
        return drafts

    def foretell(self, sequence: Sequence) -> tuple[int, ...]:
        """What followed the match."""
        index = self._indices.get(sequence.sequence_id)
        return () if index is None or index.place < 0 else continuation(sequence.tokens, index.place, self._most_tokens)

    def forget(self, sequence: Sequence) -> None:
        """Drop the index."""
        self._indices.pop(sequence.sequence_id, None)

    def close(self) -> None:
        """Drop everything."""
        self._indices.clear()


def continuation(tokens: list[int], place: int, count: int) -> tuple[int, ...]:
    """``count`` tokens that follow position ``place``; past the end of the text, those just given once more."""
    following = tokens[place + 1 : place + 1 + count]
    return tuple(following[i % len(following)] for i in range(count)) if len(following) < count else tuple(following)


def _agreement(tokens: list[int], place: int) -> int:
    """How many tokens up to ``place`` equal as many at the end of ``tokens``, at most ``LONGEST_MATCH``."""
    last = len(tokens) - 1
    most = min(LONGEST_MATCH, place + 1)
    for length in range(most):
        if tokens[place - length] != tokens[last - length]:
            return length
    return most
