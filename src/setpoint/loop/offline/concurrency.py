"""How many requests to have under way: more while the server then does more, fewer when it refuses.

Rule of ``auto``: begin with ``START`` and double while the work finished per second grows by at least ``GAIN``, else go back to
the number before. Hold it for ``HOLD_WINDOWS`` windows, then try in turn a quarter more, kept if it brings ``GAIN``, and a
fifth fewer, kept if it costs less than half of that: noise then leads down, not up. A refusal (429, 503, 529) takes a
quarter away, at most once in ``CUT_EVERY_S``. A window is twice as many answers as may be under way, at least
``LEAST_ANSWERS``; those under way when the number changed are not counted. Work is tokens of prompts and answers.

When it is wrong: prompts that get longer or shorter in the course of the file look like a server that gets slower or
faster; later trials correct it. No clock in here: every call says what time it is.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

START = 4
MOST = 256
GAIN = 0.05
HOLD_WINDOWS = 4
LEAST_ANSWERS = 16
CUT_EVERY_S = 1.0
SHRINK = 0.75
MORE = 1.25
FEWER = 0.8


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


class _Trial(Enum):
    """What the present number is: the one that is held, or one that is tried."""

    NONE = "none"
    DOUBLE = "double"
    MORE = "more"
    FEWER = "fewer"


class Adaptive:
    """``auto``: see the head of this file."""

    def __init__(self, *, start: int = START, most: int = MOST) -> None:
        assert 1 <= start <= most
        self.limit = start
        self.most = most
        self._base_limit = start
        self._base_rate = 0.0
        self._trial = _Trial.DOUBLE
        self._next_trial = _Trial.MORE
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
        if self._answers >= max(LEAST_ANSWERS, 2 * self.limit) and now_s > self._began_s:
            self._window(self._tokens / (now_s - self._began_s))

    def refused(self, now_s: float) -> None:
        """Fewer, and hold that for a while."""
        if now_s - self._cut_s < CUT_EVERY_S:
            return
        self._cut_s = now_s
        self._base_limit = max(1, int(self.limit * SHRINK))
        self._hold()

    def _window(self, rate: float) -> None:
        if self._trial is _Trial.NONE:
            self._held += 1
            self._base_rate += (rate - self._base_rate) / self._held
            if self._held < HOLD_WINDOWS:
                self._open_window(settle=0)
            else:
                self._try_next()
            return
        least = self._base_rate * (1 - GAIN / 2 if self._trial is _Trial.FEWER else 1 + GAIN)
        if rate <= least:
            self._hold()
            return
        self._base_limit, self._base_rate = self.limit, rate
        if self._trial is _Trial.DOUBLE:
            self._try(_Trial.DOUBLE, 2 * self.limit)
        else:
            self._hold()

    def _try_next(self) -> None:
        trial = self._next_trial
        self._next_trial = _Trial.FEWER if trial is _Trial.MORE else _Trial.MORE
        wanted = max(self.limit + 1, int(self.limit * MORE)) if trial is _Trial.MORE else int(self.limit * FEWER)
        self._try(trial, wanted)

    def _try(self, trial: _Trial, wanted: int) -> None:
        target = min(max(1, wanted), self.most)
        if target == self.limit:
            self._hold()
            return
        self._trial = trial
        self._open_window(settle=self.limit)
        self.limit = target

    def _hold(self) -> None:
        self._trial = _Trial.NONE
        self._held = 0
        self._open_window(settle=self.limit)
        self.limit = self._base_limit

    def _open_window(self, *, settle: int) -> None:
        self._settle = settle
        self._began_s = None
        self._answers = 0
        self._tokens = 0
