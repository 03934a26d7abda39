"""Reads ``sessions``: turns, think times, and what is added in each turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from setpoint.requirement.arrival_reader import renamed
from setpoint.requirement.reading import Value
from setpoint.requirement.sessions import ConstantSeconds, DurationDistribution, LognormalSeconds, Sessions, UniformSeconds
from setpoint.requirement.tokens_reader import read_tokens
from setpoint.requirement.units import DURATIONS, UnitError, parse_duration_s

THINK_TIMES = "a duration such as 5s, or {min: 2s, max: 10s}, or {median: 5s, p95: 30s, max: 2min}"

_KEYS = {"value_s": "value", "min_s": "min", "max_s": "max", "median_s": "median", "p95_s": "p95"}


def read_sessions(value: Value) -> Sessions | None:
    """The sessions, or ``None`` after noting what is wrong."""
    readers: dict[str, Callable[[Value], Any]] = {
        "turns": read_tokens,
        "think_time": read_duration,
        "added_tokens": read_tokens,
    }
    return value.build(Sessions, value.read(readers, required=("turns",)))


def read_duration(value: Value) -> DurationDistribution | None:
    """A distribution of durations; its kind follows from its keys."""
    if value.is_scalar:
        return value.build(ConstantSeconds, {"value_s": value.scalar(_parse_duration, THINK_TIMES)}, {"value_s": ""})
    if not value.is_mapping:
        value.fault(THINK_TIMES)
        return None
    keys = {key.value for key, _ in value.node.value if isinstance(key.value, str)}
    lognormal = bool(keys & {"median", "p95"})
    required = ("median", "p95", "max") if lognormal else ("min", "max")
    names = ("median", "p95", "min", "max") if lognormal else required
    found = value.read(dict.fromkeys(names, _duration), required=required)
    kind = LognormalSeconds if lognormal else UniformSeconds
    return cast(DurationDistribution | None, value.build(kind, renamed(found, _KEYS), _KEYS))


def _duration(value: Value) -> float | None:
    return value.scalar(parse_duration_s, DURATIONS)


def _parse_duration(text: str) -> float:
    try:
        return parse_duration_s(text)
    except UnitError as error:
        raise UnitError(f"{THINK_TIMES}; {error}") from None
