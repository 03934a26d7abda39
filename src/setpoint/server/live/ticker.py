"""Ticks the live view once a second on the event loop, without a task."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

TICK_S: Final = 1.0
logger = logging.getLogger("setpoint.server")


@contextmanager
def ticking(tick: Callable[[float], None], clock: Callable[[], float] = time.perf_counter) -> Iterator[None]:
    """Call ``tick(now_s)`` now and every second while the block runs. Must be entered on a running event loop."""
    loop = asyncio.get_running_loop()
    handle: asyncio.TimerHandle | None = None

    def again() -> None:
        nonlocal handle
        handle = loop.call_later(TICK_S, again)
        try:
            tick(clock())
        except Exception:  # a view must not take the server down
            logger.exception("the live view failed to tick")

    again()
    try:
        yield
    finally:
        if handle is not None:
            handle.cancel()
