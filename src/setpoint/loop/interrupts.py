"""Ctrl-C and ``kill`` end a measurement the same way: what runs is stopped in order, what was measured is kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_INTERRUPTED = 128 + signal.SIGINT


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Inside, SIGTERM arrives as SIGINT does: as ``KeyboardInterrupt``, or as a cancelled main task.

    A shell starts a background job with SIGINT ignored; SIGTERM then raises ``KeyboardInterrupt`` itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
