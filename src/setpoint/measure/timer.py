"""One timer that fires when it is due, not a millisecond later.

Event loops round their timers to milliseconds, which would make every request late by half of one on average. On Linux
a timer descriptor (``timerfd``, absolute times of ``CLOCK_MONOTONIC``, which is what ``time.monotonic`` reads) wakes the
loop within some tens of microseconds at no cost while it waits; elsewhere the loop's own timer has to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from time import monotonic

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
# Loops round timers down as well as up: a wait that they would round to nothing would keep a core busy.
_LOOP_TIMER_MIN_S = 0.0006


class _Time(ctypes.Structure):
    """``struct itimerspec``: interval and first expiry, seconds and nanoseconds each."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns"))


class DueTimer:
    """Calls ``callback`` once for each ``set``, at that time or just after; one time at a time. ``close`` it in the end."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle | None = None
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._descriptor = -1
        if self._libc is not None:
            self._descriptor = self._libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._fire)

    def set(self, due_s: float) -> None:
        """Fire at ``due_s`` on ``time.monotonic``, once the time set before has come."""
        wait_s = due_s - monotonic()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if wait_s <= 0:
            self._handle = self._loop.call_soon(self._callback)
        elif self._descriptor < 0 or self._libc is None:
            self._handle = self._loop.call_later(max(wait_s, _LOOP_TIMER_MIN_S), self._callback)
        else:
            whole_s, part_s = divmod(due_s, 1.0)
            # One nanosecond at least: zero would switch the timer off.
            when = _Time(0, 0, int(whole_s), max(1, int(part_s * 1e9)))
            self._libc.timerfd_settime(self._descriptor, _ABSOLUTE, ctypes.byref(when), None)

    def close(self) -> None:
        """Fire no more."""
        if self._handle is not None:
            self._handle.cancel()
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _fire(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 8)
            self._callback()
