"""A connection is an open file, and systems allow a process few of them unless it asks for more."""

from __future__ import annotations

from dataclasses import replace

from setpoint.loop.console import say
from setpoint.server.limits import ServerLimits

# Open files besides connections: the model, event loops, logs.
SPARE = 192


def with_room_for_files(limits: ServerLimits) -> ServerLimits:
    """``limits`` with no more connections than files may be open, after raising the system's soft limit as far as needed."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return limits
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.max_connections + SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits
    fewer = max(1, soft - SPARE)
    say(f"--max-connections {limits.max_connections}: this system allows {soft} open files, so it is {fewer}")
    return replace(limits, max_connections=fewer)
