"""How good guesses were, counted where they are held against what came: what a forecast of drafts has to know."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class GuessCounters:
    """Totals since the start. looked: for how many requests a guess was looked for, each step anew; found: how many had one.

    tried: how often the first, the second, ... token of a guess was held against what came, all before it having stood, by
    verification or beside it; stood: how often it stood. Both are of one length.
    """

    looked: int = 0
    found: int = 0
    tried: list[int] = field(default_factory=list)
    stood: list[int] = field(default_factory=list)

    def looked_for(self, requests: int, found: int) -> None:
        """A step in which ``found`` of ``requests`` had a guess."""
        self.looked += requests
        self.found += found

    def compared(self, position: int, stood: bool) -> None:
        """Token ``position`` (from 0) of a guess whose tokens before it stood."""
        missing = [0] * (position + 1 - len(self.tried))
        self.stood.extend(missing)
        self.tried.extend(missing)
        self.tried[position] += 1
        self.stood[position] += stood

    def verified(self, drafted: int, accepted: int) -> None:
        """A draft of ``drafted`` tokens of which ``accepted`` stood: what is behind the first that did not says nothing."""
        for position in range(min(accepted + 1, drafted)):
            self.compared(position, position < accepted)
