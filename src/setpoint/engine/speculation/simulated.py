"""A drafter for simulated worlds: right, wrong and right for a while, by a rule that depends on the text alone."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Items

from setpoint.engine.sequence import Sequence
from setpoint.engine.speculation.draft import Draft, Outlook

WRONG_TOKEN = 5


class PartlyRight:
    """Knows what ``next_token`` will say, and errs at a position that follows from the text; sometimes it has no guess."""

    def __init__(self, next_token: Callable[[Sequence], int], most_tokens: int, *, foretells: bool = False) -> None:
        self._next_token = next_token
        self._most_tokens = most_tokens
        self._foretells = foretells
        self.forgotten: set[int] = set()

    def outlook(self, sequence: Sequence) -> Outlook:
        return Outlook(len(sequence.tokens) % (self._most_tokens + 1), len(sequence.tokens) % 4)

    def propose(self, asked: Items[tuple[Sequence, int]]) -> list[Draft | None]:
        return [self._draft(sequence, count) for sequence, count in asked]

    def _draft(self, sequence: Sequence, count: int) -> Draft | None:
        return Draft(self._draft_of(sequence, count)) if len(sequence.tokens) % 7 else None

    def _draft_of(self, sequence: Sequence, count: int) -> tuple[int, ...]:
        known = len(sequence.tokens)
        wrong_at = sum(sequence.tokens) % (count + 2)
        for position in range(count):
            sequence.tokens.append(WRONG_TOKEN if position == wrong_at else self._next_token(sequence))
        draft = tuple(sequence.tokens[known:])
        del sequence.tokens[known:]
        return draft

    def foretell(self, sequence: Sequence) -> tuple[int, ...]:
        return self._draft_of(sequence, self._most_tokens) if self._foretells else ()

    def forget(self, sequence: Sequence) -> None:
        self.forgotten.add(sequence.sequence_id)

    def close(self) -> None:
        """Nothing is held."""
