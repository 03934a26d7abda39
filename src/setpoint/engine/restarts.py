"""How often a failed engine is built again, and after how long: an engine that keeps failing has to be seen, not hidden."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TypeVar

Built = TypeVar("Built")
logger = logging.getLogger("setpoint.engine")


@dataclass(frozen=True, slots=True)
class RestartLimits:
    """At most ``most`` restarts until the engine has worked for ``forgotten_after_s``; before the n-th of them a wait of
    ``first_wait_s`` * 2^(n-1)."""

    most: int = 3
    forgotten_after_s: float = 60.0
    first_wait_s: float = 0.5


NO_RESTARTS = RestartLimits(most=0)


class Restarts:
    """Counts failures as they come and says whether to try again."""

    def __init__(self, limits: RestartLimits) -> None:
        self._limits = limits
        self._in_a_row = 0

    def after_failure(self, worked_s: float) -> float | None:
        """How long to wait before the restart; ``None`` if there were as many as allowed.

        worked_s: how long the engine had worked since it was built, without the step that failed: what takes long to build, or
        to be noticed, is no better for it.
        """
        if worked_s >= self._limits.forgotten_after_s:
            self._in_a_row = 0
        if self._in_a_row >= self._limits.most:
            return None
        wait_s = self._limits.first_wait_s * 2.0**self._in_a_row
        self._in_a_row += 1
        return wait_s


class Recovery:
    """Whether an engine is up: in an ``outage`` it comes back by itself, after a ``failure`` it never does.

    Written by the engine's thread, read by any. ``retry_after_s``: what to tell those who are refused during an outage.
    """

    def __init__(self, limits: RestartLimits, clock: Callable[[], float]) -> None:
        self._restarts = Restarts(limits)
        self._clock = clock
        self._build_s = 0.0
        self._built_s: float | None = None
        self.failure: str | None = None
        self.outage: str | None = None
        self.wait_s = 0.0
        self.restarts_total = 0

    @property
    def retry_after_s(self) -> float:
        """The wait before the restart and the time that building took last."""
        return max(1.0, self.wait_s + self._build_s)

    def timed(self, build: Callable[[], Built]) -> Built:
        """What ``build`` gives, its duration remembered."""
        began_s = self._clock()
        built = build()
        self._built_s = self._clock()
        self._build_s = self._built_s - began_s
        return built

    def failed(self, message: str, *, for_good: bool, worked_until_s: float = -inf) -> None:
        """The engine failed; ``for_good``: it is not wanted back. worked_until_s: when the step that failed began, if any."""
        worked_s = 0.0 if self._built_s is None else worked_until_s - self._built_s
        self._built_s = None
        wait_s = None if for_good else self._restarts.after_failure(worked_s)
        if wait_s is None:
            self.failure, self.outage = message, None
            logger.error("%s; it is not built again", message)
        else:
            self.wait_s, self.outage = wait_s, message
            logger.error("%s; it is built again in %g s", message, wait_s)

    def back(self) -> None:
        """The engine is there again."""
        self.restarts_total += 1
        self.outage = None
        logger.warning("the engine was built again")
