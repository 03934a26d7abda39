"""A server that lives no longer than the process that started it, even if that one is killed.

The parent holds the writing end of the server's standard input and never writes. However the parent ends, the system
closes that end, and the server sees the end of its input. Unlike ``PR_SET_PDEATHSIG`` it works on every POSIX system and
does not depend on which thread started the server.
"""

from __future__ import annotations

import contextlib
import os
import threading

LIFELINE_OPTION = "--until-stdin-closes"
EXIT_ORPHANED = 1
CHUNK_BYTES = 4096


def end_with_stdin() -> None:
    """End this process at once, whatever it is doing, when standard input closes."""
    threading.Thread(target=_watch, name="setpoint-lifeline", daemon=True).start()


def _watch() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, CHUNK_BYTES):
            pass
    os._exit(EXIT_ORPHANED)
