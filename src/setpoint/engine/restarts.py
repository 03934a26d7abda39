"""How often a failed engine is built again, and after how long: an engine that keeps failing has to be seen, not hidden."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Built = TypeVar("Built")
logger = logging.getLogger("setpoint.engine")


@dataclass(frozen=True, slots=True)
class RestartLimits:
    """At most ``most`` restarts within ``within_s``; before the n-th of them a wait of ``first_wait_s`` * 2^(n-1)."""

    most: int = 3
    within_s: float = 60.0
    first_wait_s: float = 0.5


NO_RESTARTS = RestartLimits(most=0)


class Restarts:
    """Counts failures as they come and says whether to try again. Times are of any one monotonic clock, in seconds."""

    def __init__(self, limits: RestartLimits) -> None:
        self._limits = limits
        self._failed_s: deque[float] = deque(maxlen=max(1, limits.most))

    def after_failure(self, now_s: float) -> float | None:
        """How long to wait before the restart; ``None`` if there were as many as allowed within the window."""
        while self._failed_s and now_s - self._failed_s[0] >= self._limits.within_s:
            self._failed_s.popleft()
        if len(self._failed_s) >= self._limits.most:
            return None
        wait_s = self._limits.first_wait_s * 2.0 ** len(self._failed_s)
        self._failed_s.append(now_s)
        return wait_s


class Recovery:
    """Whether an engine is up: in an ``outage`` it comes back by itself, after a ``failure`` it never does.

    Written by the engine's thread, read by any. ``retry_after_s``: what to tell those who are refused during an outage.
    """

    def __init__(self, limits: RestartLimits, clock: Callable[[], float]) -> None:
        self._restarts = Restarts(limits)
        self._clock = clock
        self._build_s = 0.0
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
        self._build_s = self._clock() - began_s
        return built

    def failed(self, message: str, *, for_good: bool) -> None:
        """The engine failed; ``for_good``: it is not wanted back."""
        wait_s = None if for_good else self._restarts.after_failure(self._clock())
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
