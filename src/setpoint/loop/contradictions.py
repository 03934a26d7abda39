"""Options that would be ignored beside others: each is a mistake, and named as it was typed."""

from __future__ import annotations

from setpoint.loop.errors import BadInput
from setpoint.loop.flags import LengthFlags, LoadFlags, TraceFlags
from setpoint.loop.shorthand import FlagError

LOAD_OF_A_TRACE = ("concurrency", "burst_rate", "burst_duration", "to_rate", "steps", "on", "off", "off_rate", "prompt_tokens",
                   "output_tokens", "shared_prefix_tokens", "prefix_groups", "prefix_hit_rate", "turns")  # fmt: skip


def refuse_beside_trace(load: LoadFlags, trace: TraceFlags) -> None:
    """Raise ``BadInput`` for options of a load that the trace describes, and for those of a trace where there is none."""
    if trace.trace is not None:
        refuse(load, LOAD_OF_A_TRACE, "--trace", "the trace says it")
        return
    given = [name for name in ("trace_format", "speed_up", "trace_start") if getattr(trace, name) is not None]
    if given:
        raise BadInput(f"--{typed(given[0])}: there is no trace; add --trace FILE")


def refuse_requests_of_a_trace(length: LengthFlags) -> None:
    """Raise ``FlagError`` for a number of requests beside a trace."""
    if length.requests is not None:
        raise FlagError("--requests: the trace says how many; cut it with --duration")


def refuse(load: LoadFlags, names: tuple[str, ...], owner: str, why: str) -> None:
    """Raise ``BadInput`` for the first of these options of the load that was given beside ``owner``."""
    given = [name for name in names if getattr(load, name) is not None]
    if given:
        raise BadInput(f"--{typed(given[0])}: not together with {owner}: {why}")


def typed(name: str) -> str:
    """A field as its option is typed."""
    return name.replace("_", "-")
