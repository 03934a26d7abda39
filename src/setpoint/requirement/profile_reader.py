"""Reads ``profile``: token distributions, shared prefix, streaming, arrivals and burst."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from setpoint.requirement.profile import (
    Arrival,
    ArrivalProcess,
    Burst,
    ChoiceTokens,
    ConstantTokens,
    LognormalTokens,
    RequestProfile,
    TokenDistribution,
    UniformTokens,
)
from setpoint.requirement.reading import Value, did_you_mean
from setpoint.requirement.units import (
    BURST_RATES,
    DURATIONS,
    FLAGS,
    NUMBERS,
    RATES,
    WHOLE_NUMBERS,
    UnitError,
    parse_burst_rate_rps,
    parse_duration_s,
    parse_flag,
    parse_number,
    parse_rate_rps,
    parse_whole_number,
)

DISTRIBUTIONS = (
    "a number of tokens such as 128, or {min: 10, max: 50}, or {median: 120, p95: 400, max: 800}, "
    "or {values: [1, 2, 4], weights: [2, 1, 1]}"
)

# What the keys of a distribution say about its kind, the first match counting, and which of them a kind needs.
_KINDS: dict[str, type[TokenDistribution]] = {
    "lognormal": LognormalTokens,
    "choice": ChoiceTokens,
    "constant": ConstantTokens,
    "uniform": UniformTokens,
}
_MARKS = {
    "lognormal": {"median", "p95"},
    "choice": {"values", "weights"},
    "constant": {"value"},
    "uniform": {"min", "max"},
}
_KEYS = {
    "lognormal": ("median", "p95", "min", "max"),
    "choice": ("values", "weights"),
    "constant": ("value",),
    "uniform": ("min", "max"),
}
_REQUIRED = {
    "lognormal": ("median", "p95", "max"),
    "choice": ("values",),
    "constant": ("value",),
    "uniform": ("min", "max"),
}
_RATE_NAMES = {"rate_rps": "rate", "duration_s": "duration"}


def read_profile(value: Value) -> RequestProfile | None:
    """The request profile, or ``None`` after noting what is wrong."""
    readers: dict[str, Callable[[Value], Any]] = {
        "prompt_tokens": read_tokens,
        "output_tokens": read_tokens,
        "shared_prefix_tokens": _whole_number,
        "streaming": lambda entry: entry.scalar(parse_flag, FLAGS),
        "arrival": _read_arrival,
    }
    fields = value.fields((*readers, "burst"), required=("prompt_tokens", "output_tokens", "arrival"))
    if not value.is_mapping:
        return None
    found = {name: reader(fields[name]) for name, reader in readers.items() if name in fields}
    if "burst" in fields:
        found["burst"] = _read_burst(fields["burst"], found.get("arrival"))
    return value.build(RequestProfile, found)


def read_tokens(value: Value) -> TokenDistribution | None:
    """A token distribution; its kind follows from its keys unless ``kind`` names it."""
    if value.is_scalar:
        count = value.scalar(_parse_token_count, DISTRIBUTIONS)
        return value.build(ConstantTokens, {"value": count}, {"value": ""})
    if not value.is_mapping:
        value.fault(DISTRIBUTIONS)
        return None
    kind = _kind_of(value)
    if kind is None:
        return None
    readers: dict[str, Callable[[Value], Any]] = {"kind": lambda entry: kind}
    readers |= {key: _KEY_READERS[key] for key in _KEYS[kind]}
    found = value.read(readers, required=_REQUIRED[kind])
    return cast(TokenDistribution | None, value.build(_KINDS[kind], found))


def _parse_token_count(text: str) -> int:
    try:
        return parse_whole_number(text)
    except UnitError:
        raise UnitError(DISTRIBUTIONS) from None


def _whole_number(value: Value) -> int | None:
    return value.scalar(parse_whole_number, WHOLE_NUMBERS)


def _number(value: Value) -> float | None:
    return value.scalar(parse_number, NUMBERS)


_KEY_READERS: dict[str, Callable[[Value], Any]] = {
    "median": _number,
    "p95": _number,
    "min": _whole_number,
    "max": _whole_number,
    "value": _whole_number,
    "values": lambda value: value.items(parse_whole_number, WHOLE_NUMBERS),
    "weights": lambda value: value.items(parse_number, NUMBERS),
}


def _kind_of(value: Value) -> str | None:
    """The kind a mapping names or shows by its keys. Notes it if it does neither."""
    keys = value.mapping(DISTRIBUTIONS) or {}
    if "kind" in keys:
        return keys["kind"].one_of(_KINDS)
    for kind, marks in _MARKS.items():
        if keys.keys() & marks:
            return kind
    every_key = [name for names in _KEYS.values() for name in names]
    guess = next((hint for hint in (did_you_mean(key, every_key) for key in sorted(keys)) if hint), "")
    value.fault(DISTRIBUTIONS + guess, found=f"a mapping with the keys {', '.join(sorted(keys)) or '(none)'}")
    return None


def _read_arrival(value: Value) -> Arrival | None:
    readers: dict[str, Callable[[Value], Any]] = {
        "process": lambda entry: entry.one_of(process.value for process in ArrivalProcess),
        "rate": lambda entry: entry.scalar(parse_rate_rps, RATES),
        "cv": _number,
    }
    found = value.read(readers, required=("rate",))
    return value.build(Arrival, _renamed(found, _RATE_NAMES), _RATE_NAMES)


def _read_burst(value: Value, arrival: Arrival | None) -> Burst | None:
    """The burst; a multiple is of the sustained rate (of 1/s where that is wrong: the file is refused anyway)."""
    sustained_rps = 1.0 if arrival is None else arrival.rate_rps
    readers: dict[str, Callable[[Value], Any]] = {
        "rate": lambda entry: entry.scalar(lambda text: parse_burst_rate_rps(text, sustained_rps), BURST_RATES),
        "duration": lambda entry: entry.scalar(parse_duration_s, DURATIONS),
    }
    found = value.read(readers, required=("rate", "duration"))
    return value.build(Burst, _renamed(found, _RATE_NAMES), _RATE_NAMES)


def _renamed(found: dict[str, Any] | None, yaml_names: Mapping[str, str]) -> dict[str, Any] | None:
    """``found`` by attribute instead of by the key in the file."""
    attributes = {name: attribute for attribute, name in yaml_names.items()}
    return None if found is None else {attributes.get(name, name): value for name, value in found.items()}
