"""A requirement from a few options of the command line, for measuring without a file."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from math import ceil
from typing import Any

from pydantic import ValidationError

from setpoint.loop.errors import BadInput, first_problem
from setpoint.loop.schedule import Schedule, schedule_for
from setpoint.requirement import ArrivalProcess, Requirement, UnitError
from setpoint.requirement.units import parse_burst_rate_rps, parse_duration_s, parse_rate_rps

DEFAULTS: dict[str, Any] = {
    "name": "measurement",
    "profile": {
        "prompt_tokens": {"kind": "constant", "value": 128},
        "output_tokens": {"kind": "constant", "value": 64},
        "arrival": {"process": "poisson", "rate_rps": 1.0},
    },
}


DEFAULT_BURST_S = 10.0
MAX_PHASE_S = 86_400.0
# Which option a field comes from.
OPTIONS = (
    ("profile.prompt_tokens", "--prompt-tokens"),
    ("profile.output_tokens", "--output-tokens"),
    ("profile.shared_prefix_tokens", "--shared-prefix-tokens"),
    ("profile.streaming", "--streaming"),
    ("profile.arrival.rate_rps", "--rate"),
    ("profile.arrival.process", "--arrival"),
    ("profile.arrival.cv", "--cv"),
    ("profile.burst.duration_s", "--burst-duration"),
    ("profile.burst", "--burst-rate"),
)


@dataclass(frozen=True, slots=True)
class LoadFlags:
    """Options as typed; ``None`` leaves what the requirement (or the default) says."""

    rate: str | None = None
    arrival: str | None = None
    cv: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    shared_prefix_tokens: int | None = None
    streaming: bool | None = None
    burst_rate: str | None = None
    burst_duration: str | None = None


class FlagError(BadInput):
    """An option cannot be used; the message names it."""


def seconds(option: str, text: str, *, positive: bool = False) -> float:
    """A duration such as ``30s``; a bare number is seconds. Raises ``FlagError``."""
    try:
        value_s = float(text)
    except ValueError:
        try:
            value_s = parse_duration_s(text)
        except UnitError as error:
            raise FlagError(f"--{option} {text}: allowed: {error}") from error
    if not 0 <= value_s <= MAX_PHASE_S or (positive and value_s == 0):
        least = "more than 0" if positive else "at least 0"
        raise FlagError(f"--{option} {text}: allowed: {least} and at most {MAX_PHASE_S:.0f} seconds")
    return value_s


def described_requirement(base: Requirement | None, flags: LoadFlags) -> Requirement:
    """``base`` (or the default: 1/s, 128 + 64 tokens, streaming, no SLO) with the given options put in."""
    data = deepcopy(DEFAULTS) if base is None else base.model_dump(mode="json")
    profile = data["profile"]
    arrival = profile["arrival"]
    arrival.update(_arrival_changes(flags))
    for key in ("prompt_tokens", "output_tokens"):
        tokens = getattr(flags, key)
        if tokens is not None:
            profile[key] = {"kind": "constant", "value": tokens}
    for key in ("shared_prefix_tokens", "streaming"):
        if getattr(flags, key) is not None:
            profile[key] = getattr(flags, key)
    profile["burst"] = _burst(flags, profile.get("burst"), sustained_rps=float(arrival["rate_rps"]))
    try:
        return Requirement.model_validate(data)
    except ValidationError as error:
        field, problem = first_problem(error)
        option = next((name for start, name in OPTIONS if field.startswith(start)), field)
        raise FlagError(f"{option}: {problem}") from error


def _burst(flags: LoadFlags, base: dict[str, float] | None, *, sustained_rps: float) -> dict[str, float] | None:
    """The burst of ``base`` with the options put in."""
    burst = dict(base) if base is not None else {"duration_s": DEFAULT_BURST_S}
    if flags.burst_rate is not None:
        burst["rate_rps"] = _rate("burst-rate", flags.burst_rate, multiple_of_rps=sustained_rps)
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
        sustained_s = max(1.0, float(ceil(requests / requirement.profile.arrival.rate_rps)))
    base = schedule_for(requirement, sustained_s=sustained_s)
    return Schedule(warmup_s=warmup_s, sustained_s=base.sustained_s, recovery_s=base.recovery_s, drain_s=base.drain_s)


def _arrival_changes(flags: LoadFlags) -> Iterator[tuple[str, object]]:
    if flags.rate is not None:
        yield "rate_rps", _rate("rate", flags.rate)
    if flags.arrival is not None:
        yield "process", flags.arrival
        if flags.arrival != ArrivalProcess.GAMMA and flags.cv is None:
            yield "cv", 1.0
    if flags.cv is not None:
        yield "cv", flags.cv


def _rate(option: str, text: str, *, multiple_of_rps: float | None = None) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return parse_rate_rps(text) if multiple_of_rps is None else parse_burst_rate_rps(text, multiple_of_rps)
    except UnitError as error:
        raise FlagError(f"--{option} {text}: allowed: {error}") from error
