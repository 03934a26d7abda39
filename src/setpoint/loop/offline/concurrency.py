"""How many requests to have under way: more while the server then does more, fewer when it refuses.

Rule of ``auto``: begin with ``START``; double while the work finished per second grows by at least ``GAIN``, else go back
to the number before and hold it for ``HOLD_WINDOWS`` windows before trying a quarter more. A refusal (429, 503) takes a
quarter away, at most once in ``CUT_EVERY_S``. A window is as many answers as are under way, at least ``LEAST_ANSWERS``; the
answers under way when the number changed are not counted. Work is the tokens of prompts and answers.

When it is wrong: prompts that get longer or shorter in the course of the file look like a server that gets slower or
faster; the next trial corrects it. No clock in here: every call says what time it is.
"""

from __future__ import annotations

from typing import Protocol

START = 4
MOST = 256
GAIN = 0.05
HOLD_WINDOWS = 8
LEAST_ANSWERS = 8
CUT_EVERY_S = 1.0
SHRINK = 0.75
PROBE = 1.25


class Concurrency(Protocol):
    """``limit``: most requests under way now; ``most``: the largest it can become."""

    @property
    def limit(self) -> int: ...

    @property
    def most(self) -> int: ...

    def answered(self, now_s: float, tokens: int) -> None:
        """A request was answered, with so many tokens of prompt and answer."""

    def refused(self, now_s: float) -> None:
        """The server had no room for a request."""


class Fixed:
    """As many as were asked for, whatever the server says."""

    def __init__(self, limit: int) -> None:
        self.limit = self.most = limit

    def answered(self, now_s: float, tokens: int) -> None:
        """Nothing changes."""

    def refused(self, now_s: float) -> None:
        """Nothing changes: the request itself waits as it was told to."""


class Adaptive:
    """``auto``: see the head of this file."""

    def __init__(self, *, start: int = START, most: int = MOST) -> None:
        assert 1 <= start <= most
        self.limit = start
        self.most = most
        self._base_limit = start
        self._base_rate = 0.0
        self._climbing = True
        self._held = 0
        self._cut_s = float("-inf")
        self._settle = 0
        self._began_s: float | None = None
        self._answers = 0
        self._tokens = 0

    def answered(self, now_s: float, tokens: int) -> None:
        """Count, and decide at the end of a window."""
        if self._settle:
            self._settle -= 1
            return
        if self._began_s is None:
            self._began_s = now_s  # The answer that opens a window belongs to the time before it.
            return
        self._answers += 1
        self._tokens += max(1, tokens)
        if self._answers >= max(LEAST_ANSWERS, self.limit) and now_s > self._began_s:
            self._window(self._tokens / (now_s - self._began_s))

    def refused(self, now_s: float) -> None:
        """Fewer, and hold that for a while."""
        if now_s - self._cut_s < CUT_EVERY_S:
            return
        self._cut_s = now_s
        self._base_limit = max(1, int(self.limit * SHRINK))
        self._hold()

    def _window(self, rate: float) -> None:
        if not self._climbing:
            self._base_rate = rate
            self._held += 1
            if self._held >= HOLD_WINDOWS:
                self._climb(max(self.limit + 1, int(self.limit * PROBE)))
            else:
                self._restart(settle=0)
        elif rate > self._base_rate * (1 + GAIN):
            self._base_limit, self._base_rate = self.limit, rate
            self._climb(2 * self.limit)
        else:
            self._hold()

    def _climb(self, wanted: int) -> None:
        target = min(wanted, self.most)
        if target == self.limit:
            self._hold()
            return
        self._climbing = True
        self._restart(settle=self.limit)
        self.limit = target

    def _hold(self) -> None:
        self._climbing = False
        self._held = 0
        self._restart(settle=self.limit)
        self.limit = self._base_limit

    def _restart(self, *, settle: int) -> None:
        self._settle = settle
        self._began_s = None
        self._answers = 0
        self._tokens = 0
