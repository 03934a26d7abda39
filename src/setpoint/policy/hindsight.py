"""What was expected of the drafts that were chosen, against what came of them: the best of many is worth less than it seems.

The controller takes the likeliest draft tokens of all requests. Each survival is an estimate from few tries, so those that look
best are on the whole those over-estimated most (the winner's curse; Smith and Winkler, 2006), the more the larger the batch.
``Hindsight`` keeps, by powers of two of the number of requests, expected and accepted tokens of chosen drafts, and gives their
ratio, shrunk to 1 and never above: every survival is multiplied by it. Where guesses are free the first tokens that would have
been chosen go on being held against what came while there are no drafts, so that the ratio can rise again.

``ShapeChanges`` does the same for the cost of steps whose number of tokens is not that of the step before: how many of them a
step with drafts brings, counting the one back.

Defaults: half of what is known is forgotten in about 40 expected tokens, or 40 steps with drafts. When it is wrong: a batch
of a size that was not seen counts as right.
"""

from __future__ import annotations

from typing import Final

MEMORY_TOKENS: Final = 60.0
PRIOR_TOKENS: Final = 4.0
MEMORY_STEPS: Final = 60.0
PRIOR_STEPS: Final = 6.0
PRIOR_CHANGES: Final = 1 / 3


class Hindsight:
    """Expected and accepted draft tokens, by the size of the batch."""

    def __init__(self) -> None:
        self._sums: dict[int, tuple[float, float]] = {}

    def share(self, requests: int) -> float:
        """What chosen draft tokens of a batch of so many ``requests`` are worth, of what was expected: (0, 1]."""
        expected, came = self._sums.get(requests.bit_length(), (0.0, 0.0))
        return min(1.0, (came + PRIOR_TOKENS) / (expected + PRIOR_TOKENS))

    def learn(self, requests: int, *, expected: float, came: float) -> None:
        """Of drafts that were chosen, or would have been: expected tokens and those that stood."""
        size = requests.bit_length()
        known = self._sums.get(size, (0.0, 0.0))
        kept = max(0.0, 1.0 - expected / MEMORY_TOKENS)
        self._sums[size] = (kept * known[0] + expected, kept * known[1] + came)


class ShapeChanges:
    """``each``: changes of a step's number of tokens that a step with drafts brings: 0 (always alike) to 2 (in and out)."""

    def __init__(self) -> None:
        self._steps, self._changes = PRIOR_STEPS, PRIOR_STEPS * PRIOR_CHANGES
        self._last_tokens = -1
        self._last_drafted = False

    @property
    def each(self) -> float:
        """See the class."""
        return min(2.0, self._changes / self._steps)

    def saw(self, tokens: int, *, drafted: bool) -> None:
        """A step of so many tokens, drafts among them or not."""
        kept = 1.0 - 1.0 / MEMORY_STEPS if drafted else 1.0
        self._steps, self._changes = kept * self._steps + drafted, kept * self._changes
        if (drafted or self._last_drafted) and tokens != self._last_tokens:
            self._changes += 1.0
        self._last_tokens, self._last_drafted = tokens, drafted
