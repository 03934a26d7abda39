"""A requirement from the options of the command line, for measuring without a file or with a changed one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from math import ceil
from typing import Any

from pydantic import ValidationError

from setpoint.loop.errors import first_problem
from setpoint.loop.flags import LoadFlags
from setpoint.loop.option_names import option_for
from setpoint.loop.schedule import Schedule, schedule_for
from setpoint.loop.shorthand import FlagError, fraction, rate_rps, seconds, steps, tokens
from setpoint.requirement import ArrivalProcess, Requirement
from setpoint.requirement.arrival import Arrival

__all__ = ["FlagError", "LoadFlags", "described_requirement", "schedule_from", "seconds"]

DEFAULTS: dict[str, Any] = {
    "name": "measurement",
    "profile": {
        "prompt_tokens": {"kind": "constant", "value": 128},
        "output_tokens": {"kind": "constant", "value": 64},
        "arrival": {"process": "poisson", "rate_rps": 1.0},
    },
}
DEFAULT_BURST_S = 10.0

# Options that only one process understands: field of the arrival, and what reads the option.
_OF_PROCESS: dict[ArrivalProcess, dict[str, tuple[str, Callable[[str, str], object]]]] = {
    ArrivalProcess.RAMP: {"to_rate": ("to_rps", rate_rps)},
    ArrivalProcess.STEP: {"steps": ("steps", steps)},
    ArrivalProcess.ON_OFF: {
        "on": ("on_s", seconds),
        "off": ("off_s", seconds),
        "off_rate": ("off_rate_rps", rate_rps),
    },
}


def described_requirement(base: Requirement | None, flags: LoadFlags) -> Requirement:
    """``base`` (or the default: 1/s, 128 + 64 tokens, streaming, no SLO) with the given options put in."""
    data = deepcopy(DEFAULTS) if base is None else base.model_dump(mode="json")
    profile = data["profile"]
    profile["arrival"] = _arrival(flags, profile["arrival"])
    profile.update(_shape_changes(flags))
    profile["sessions"] = _sessions(flags, profile.get("sessions"))
    try:
        sustained_rps = Arrival.model_validate(profile["arrival"]).mean_rps if flags.burst_rate is not None else 0.0
        profile["burst"] = _burst(flags, profile.get("burst"), sustained_rps=sustained_rps)
        return Requirement.model_validate(data)
    except ValidationError as error:
        field, problem = first_problem(error)
        raise FlagError(f"{option_for(field)}: {problem}") from error


def _shape_changes(flags: LoadFlags) -> Iterator[tuple[str, object]]:
    for key in ("prompt_tokens", "output_tokens"):
        text = getattr(flags, key)
        if text is not None:
            yield key, tokens(key.replace("_", "-"), text)
    for key in ("shared_prefix_tokens", "prefix_groups", "streaming"):
        if getattr(flags, key) is not None:
            yield key, getattr(flags, key)
    if flags.prefix_hit_rate is not None:
        yield "prefix_hit_rate", fraction("prefix-hit-rate", flags.prefix_hit_rate)


def _sessions(flags: LoadFlags, base: dict[str, Any] | None) -> dict[str, Any] | None:
    """The sessions of ``base`` with the options put in."""
    if flags.turns is not None:
        base = {**(base or {}), "turns": tokens("turns", flags.turns)}
    if flags.think_time is not None:
        if base is None:
            raise FlagError("--think-time: there are no conversations; add --turns, such as --turns 4")
        base = {**base, "think_time": {"kind": "constant", "value_s": seconds("think-time", flags.think_time)}}
    return base


def _burst(flags: LoadFlags, base: dict[str, float] | None, *, sustained_rps: float) -> dict[str, float] | None:
    """The burst of ``base`` with the options put in."""
    burst = dict(base) if base is not None else {"duration_s": DEFAULT_BURST_S}
    if flags.burst_rate is not None:
        burst["rate_rps"] = rate_rps("burst-rate", flags.burst_rate, multiple_of_rps=sustained_rps)
    if flags.burst_duration is not None:
        burst["duration_s"] = seconds("burst-duration", flags.burst_duration, positive=True)
        if "rate_rps" not in burst:
            raise FlagError("--burst-duration: there is no burst; add --burst-rate, such as --burst-rate 3x")
    return burst if "rate_rps" in burst else None


def schedule_from(requirement: Requirement, sustained_s: float | None, requests: int | None, warmup_s: float) -> Schedule:
    """Phases by ``--duration``, by ``--requests``, or as long as the requirement's percentiles take."""
    if requests is not None:
        if sustained_s is not None:
            raise FlagError("--requests: says how long to measure, and so does --duration; give one of them")
        sustained_s = max(1.0, float(ceil(requests / requirement.profile.arrival.mean_rps)))
    base = schedule_for(requirement, sustained_s=sustained_s)
    return Schedule(warmup_s=warmup_s, sustained_s=base.sustained_s, recovery_s=base.recovery_s, drain_s=base.drain_s)


def _arrival(flags: LoadFlags, base: dict[str, Any]) -> dict[str, Any]:
    """The arrivals of ``base`` with the options put in; another process drops what belonged to the one before."""
    process = _process(flags, base)
    kept = base if process == base["process"] else {"rate_rps": base["rate_rps"]}
    arrival: dict[str, Any] = {**kept, "process": process}
    if flags.rate is not None:
        arrival["rate_rps"] = rate_rps("rate", flags.rate)
    if flags.cv is not None:
        arrival["cv"] = flags.cv
    for options in _OF_PROCESS.values():
        for flag, (field, read) in options.items():
            text = getattr(flags, flag)
            if text is not None:
                arrival[field] = read(flag.replace("_", "-"), text)
    if flags.steps is not None and process == ArrivalProcess.STEP:
        if flags.rate is not None:
            raise FlagError("--rate: the steps have rates of their own; leave out --rate or --steps")
        arrival["rate_rps"] = _mean_rps(arrival["steps"])
    return arrival


def _process(flags: LoadFlags, base: dict[str, Any]) -> str:
    """The process asked for, or the one that the other options imply."""
    if flags.arrival is not None:
        return flags.arrival.replace("-", "_")
    for process, options in _OF_PROCESS.items():
        if any(getattr(flags, flag) is not None for flag in options):
            return process.value
    return str(base["process"])


def _mean_rps(found: list[dict[str, float]]) -> float:
    return sum(step["rate_rps"] * step["duration_s"] for step in found) / sum(step["duration_s"] for step in found)
