"""Notices a step that does not come back, from outside the thread that is in it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf


class StepWatch:
    """The engine's thread says when it enters and leaves a step; another asks whether one has taken too long.

    ``clock`` is monotonic, in seconds.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float]) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._lock = threading.Lock()
        self._began_s: float | None = None
        self._given_up = False
        self.entered_s = -inf
        """When the last step began, be it over or not."""

    @property
    def message(self) -> str:
        """What to say of a step given up."""
        return f"a step has taken more than {self.limit_s:g} s"

    @property
    def given_up(self) -> bool:
        """Whether the thread is now inside a step that was given up."""
        return self._given_up

    def enter(self) -> None:
        """A step begins."""
        with self._lock:
            self._began_s = self.entered_s = self._clock()

    def leave(self) -> bool:
        """The step is over. True if it was given up meanwhile: nobody waits for its result any more."""
        with self._lock:
            given_up, self._given_up, self._began_s = self._given_up, False, None
            return given_up

    def overdue(self) -> bool:
        """Whether the step under way has now taken longer than the limit: told once, and given up by that."""
        with self._lock:
            if self._began_s is None or self._given_up or self._clock() - self._began_s <= self.limit_s:
                return False
            self._given_up = True
            return True
