"""A guess at the next tokens of one request, and what makes such guesses."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from setpoint.engine.sequence import Sequence

SURENESSES = 4
"""Drafters sort their guesses into so many classes of how sure they are; survivals are learned for each."""
DRAFT_MODEL_SURENESS = 2
READ_TOKENS = 128
"""Most tokens of a text that a draft model reads in a step."""


@dataclass(frozen=True, slots=True)
class Draft:
    """``tokens``: what may come next, at least one. ``proposal``: the probabilities that each was drawn from, float32
    [len(tokens), vocabulary]; ``None`` if they were not drawn but follow from the text (probability 1 each)."""

    tokens: tuple[int, ...]
    proposal: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a drafter could do for a request now. ``most_tokens``: its longest guess (0: none). ``sureness``: its class, below
    ``SURENESSES``. ``behind_tokens``: tokens of the text that it would read now before it guesses. ``later_tokens``: those that
    it would have left to read; while there are any it only reads."""

    most_tokens: int
    sureness: int = 0
    behind_tokens: int = 0
    later_tokens: int = 0


NOTHING = Outlook(0)


class Drafter(Protocol):
    """Makes drafts. Whatever it guesses, the output is the model's own: a bad guess costs time and nothing else."""

    def outlook(self, sequence: Sequence) -> Outlook:
        """What ``propose`` could do now for a sequence that decodes."""
        ...

    def propose(self, asked: Items[tuple[Sequence, int]]) -> list[Draft | None]:
        """A draft of at most so many tokens for each sequence, ``None`` where it has no guess; for 0 tokens the text is only
        read on."""
        ...

    def foretell(self, sequence: Sequence) -> tuple[int, ...]:
        """The guess that ``outlook`` spoke of, where it costs nothing; else empty."""
        ...

    def forget(self, sequence: Sequence) -> None:
        """The sequence has ended: give up what is kept of it. Harmless if there is nothing."""
        ...

    def close(self) -> None:
        """Give memory back; no call may follow."""
        ...
