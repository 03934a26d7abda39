"""The event loop that the client runs on, and how late that loop was."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar

from setpoint.measure.histogram import LogHistogram

LAG_PERIOD_S = 0.02

Result = TypeVar("Result")


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run ``main`` to its end on uvloop, or on asyncio's own loop where uvloop is not installed."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:
        pass
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


@contextmanager
def collector_paused() -> Iterator[None]:
    """No pauses for garbage collection inside; what the run makes is freed by reference counts or afterwards.

    Entering collects once, which takes as long as the process's heap is large: enter before choosing an instant to start
    at. Inside another such block entering costs nothing.
    """
    was_enabled = gc.isenabled()
    if was_enabled:
        gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class LagMonitor:
    """How late a timer fires that asks for ``LAG_PERIOD_S``: an answer that arrives meanwhile is stamped as late.

    Loops round timers to milliseconds, so up to a millisecond of what is seen here is the timer's own.
    """

    def __init__(self) -> None:
        self.lag_s = LogHistogram()
        self._due_s = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look, on the running loop."""
        self._due_s = monotonic() + LAG_PERIOD_S
        self._handle = asyncio.get_running_loop().call_later(LAG_PERIOD_S, self._fire)

    def stop(self) -> None:
        """Look no more."""
        if self._handle is not None:
            self._handle.cancel()

    def _fire(self) -> None:
        self.lag_s.add(max(0.0, monotonic() - self._due_s))
        self.start()
