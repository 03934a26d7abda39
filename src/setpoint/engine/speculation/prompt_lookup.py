"""Prompt lookup: what followed the last few tokens when they stood in the request's own text before.

Source: prompt lookup decoding (Saxena, 2023) and n-gram speculation as vLLM has it. It costs some microseconds and pays where
answers repeat what is in the prompt or in themselves: code that is edited, forms that are filled, texts that are quoted.

Each n-gram's latest place is kept in an index that reads every token once. Beside it stands the place that the last guess came
from: whichever agrees with the text over more tokens is followed, the later one if they agree equally far. If neither agrees
over two tokens, the place of the last guess is kept for ``MOST_MISSES`` guesses: in a form one word differs and all else goes
on as before. Where a guess runs into the end of the text it goes on with itself, which is right for all that is periodic.

A value may be longer or shorter than the example's. So the last place at which the text agreed with what it followed is kept
for ``MOST_LOST`` tokens (``Anchor``), and where the text leaves it, its last token is looked for ``AHEAD`` of there, and a
little ``BEHIND``: what ends a field leads on to the next one, not to the one that followed its latest place. A token that stood
in what agreed before is taken for such an end at once; any other if the one before it agrees too, or once the guesses that a
value is as long as the example's are used up. A place found so counts for ``ADVANTAGE`` tokens more than that of an n-gram,
unless one token alone agrees there and more do at the n-gram.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Final

from setpoint.engine.sequence import Sequence
from setpoint.engine.speculation.draft import NOTHING, Draft, Outlook

GRAMS: Final = (4, 3, 2, 1)
LONGEST_MATCH: Final = 16
# A guess's class by how many tokens agree before it: one at most, 2 or 3, 4 to 7, more.
SURE_FROM: Final = (2, 4, 8)
ALIGNED_SURENESS: Final = 1
KEPT_FROM: Final = 4
CONFIRMED_FROM: Final = 2
MOST_MISSES: Final = 2
AHEAD: Final = 16
BEHIND: Final = 4
MOST_LOST: Final = 24
ADVANTAGE: Final = 3
# Tokens indexed a call: a long prompt takes several steps, for its reading would hold up everybody's.
MOST_READ: Final = 2048


@dataclass(frozen=True, slots=True)
class Anchor:
    """The token ``at`` of a text was the last to agree with what the text followed, which stood at ``place`` there; ``run``
    tokens agreed up to it."""

    place: int
    at: int
    run: int

    def straight(self, last: int) -> int:
        """The place of token ``last`` if nothing is longer or shorter than in what is followed."""
        return self.place + last - self.at

    def near(self, last: int) -> Iterable[int]:
        """Places before ``last`` at which the text may go on, the likeliest first."""
        yield from range(self.place + 1, min(self.place + AHEAD + 1, last))
        yield from range(self.place, max(-1, self.place - BEHIND), -1)


class LookupIndex:
    """The n-grams of one growing text. ``place``: the token that the next guess goes on from, -1 if there is none.

    ``aligned``: the text agrees there, and goes on in what it followed.
    """

    __slots__ = ("_anchor", "_ends", "_follows", "_length", "_misses", "_read", "aligned", "place")

    def __init__(self) -> None:
        self._ends: dict[tuple[int, ...], int] = {}
        self._read = 0
        self._length = 0
        self._misses = MOST_MISSES
        self._anchor: Anchor | None = None
        self._follows = False  # Whether ``place`` follows from the anchor.
        self.aligned = False
        self.place = -1

    def find(self, tokens: list[int]) -> int:
        """Look for the end of ``tokens`` earlier in them: how many tokens agree, the last of them at ``place``.

        0: none do; there may be a ``place`` to go on from nevertheless. ``tokens`` must begin with those of the call before.
        Lengths above ``LONGEST_MATCH`` are not told apart.
        """
        last = len(tokens) - 1
        self._take_in(tokens, last)
        kept = self.place + len(tokens) - self._length if self.place >= 0 else -1
        self._confirm(tokens, kept, len(tokens) - self._length)
        self._length = len(tokens)
        length, place = self._latest(tokens)
        ahead, goes_on = self._goes_on(tokens, kept)
        if ahead and (ahead > 1 or length <= 1) and length < min(LONGEST_MATCH, ahead + ADVANTAGE):
            return self._follow(goes_on, last, ahead, aligned=True)
        own = _agreement(tokens, kept, last) if kept >= 0 else 0
        if own and (own, kept) > (length, place):
            length, place = own, kept
        straight = kept if self._anchor is None else self._anchor.straight(last)
        if length < 2 and straight >= 0 and self._misses < MOST_MISSES:
            self._misses += 1
            self.place, self._follows, self.aligned = straight, self._anchor is not None, False
            return int(tokens[straight] == tokens[last])
        return self._follow(place, last, length, aligned=False)

    def _latest(self, tokens: list[int]) -> tuple[int, int]:
        """How many tokens agree at the latest place of the longest n-gram that is known, and that place; 0 and -1 without."""
        last = len(tokens) - 1
        for size in GRAMS:
            end = self._ends.get(tuple(tokens[-size:])) if last >= size else None
            if end is not None:
                return _agreement(tokens, end, last), end
        return 0, -1

    def _goes_on(self, tokens: list[int], kept: int) -> tuple[int, int]:
        """How many tokens agree where the text goes on in what it followed, and that place; 0 and -1 if it is not found."""
        anchor, last = self._anchor, len(tokens) - 1
        if anchor is None:
            return 0, -1
        pointers = [anchor.straight(last), kept] if self._follows and kept >= 0 else [anchor.straight(last)]
        length, place = max((_agreement(tokens, each, last), each) for each in pointers)
        if length:
            return length, place
        at_once = self._misses >= MOST_MISSES or tokens[last] in tokens[anchor.place + 1 - anchor.run : anchor.place + 1]
        for each in anchor.near(last):
            if tokens[each] == tokens[last]:
                length = _agreement(tokens, each, last)
                if at_once or length > 1:
                    return length, each
        return 0, -1

    def _follow(self, place: int, last: int, length: int, *, aligned: bool) -> int:
        """Guess from ``place`` next, where ``length`` tokens agree."""
        self.place, self._follows, self.aligned = place, aligned or length >= KEPT_FROM, aligned
        if length >= KEPT_FROM:
            self._anchor, self._misses = Anchor(place, last, length), 0
        return length

    def _confirm(self, tokens: list[int], kept: int, grown: int) -> None:
        """Move the anchor to the last of the ``grown`` new tokens at which the text agreed with what was followed."""
        last = len(tokens) - 1
        enough = CONFIRMED_FROM if self._follows else KEPT_FROM
        for back in range(min(grown, LONGEST_MATCH) if kept >= 0 else 0):
            run = _agreement(tokens, kept - back, last - back)
            if run >= enough:
                self._anchor, self._misses = Anchor(kept - back, last - back, run), 0
                break
        if self._anchor is not None and last - self._anchor.at > MOST_LOST:
            self._anchor = None

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
        sureness = sum(length >= bound for bound in SURE_FROM)
        return Outlook(self._most_tokens, max(sureness, ALIGNED_SURENESS) if index.aligned else sureness)

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


def _agreement(tokens: list[int], place: int, last: int) -> int:
    """How many tokens up to ``place`` equal as many up to ``last``, a later one, at most ``LONGEST_MATCH``."""
    most = min(LONGEST_MATCH, place + 1)
    for length in range(most):
        if tokens[place - length] != tokens[last - length]:
            return length
    return most
