"""Reads a distribution of tokens; its kind follows from its keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from setpoint.requirement.reading import Value, did_you_mean
from setpoint.requirement.tokens import ChoiceTokens, ConstantTokens, LognormalTokens, TokenDistribution, UniformTokens
from setpoint.requirement.units import NUMBERS, WHOLE_NUMBERS, UnitError, parse_number, parse_whole_number

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


def read_whole_number(value: Value) -> int | None:
    """A whole number, or ``None`` after noting what is wrong."""
    return value.scalar(parse_whole_number, WHOLE_NUMBERS)


def read_number(value: Value) -> float | None:
    """A number, or ``None`` after noting what is wrong."""
    return value.scalar(parse_number, NUMBERS)


_KEY_READERS: dict[str, Callable[[Value], Any]] = {
    "median": read_number,
    "p95": read_number,
    "min": read_whole_number,
    "max": read_whole_number,
    "value": read_whole_number,
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
