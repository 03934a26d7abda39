"""Quantities as they are typed on a command line: ``30s``, ``2/s``, ``64-256``, ``median=100,p95=300``, ``2/s:30s,4/s:30s``.

Each function raises ``FlagError`` whose message names the option, what was typed, and what is allowed.
"""

from __future__ import annotations

import re
from typing import Any

from setpoint.loop.errors import BadInput
from setpoint.requirement import UnitError
from setpoint.requirement.units import (
    parse_burst_rate_rps,
    parse_duration_s,
    parse_fraction,
    parse_number,
    parse_rate_rps,
    parse_whole_number,
)

MAX_PHASE_S = 86_400.0
TOKENS = "a number such as 128, a range such as 64-256, a list such as 32,64,128, or median=100,p95=300 (and min, max)"
STEPS = "rates and how long each lasts, such as 2/s:30s,4/s:30s"

_RANGE = re.compile(r"(?P<low>[0-9_]+)\s*(?:-|\.\.|–)\s*(?P<high>[0-9_]+)")
_LOGNORMAL_KEYS = ("median", "p95", "min", "max")


class FlagError(BadInput):
    """An option cannot be used; the message names it."""


def refused(option: str, text: str, allowed: object) -> FlagError:
    """The error for ``--option text``."""
    return FlagError(f"--{option} {text}: allowed: {allowed}")


def minutes_or_seconds(option: str, text: str) -> float:
    """As ``seconds``, at least more than 0; of a budget ``5m`` is five minutes, as nobody plans milliseconds."""
    number = text.removesuffix("m")
    minutes = number != text and number.replace(".", "", 1).isdigit()
    return seconds(option, f"{text}in" if minutes else text, positive=True)


def seconds(option: str, text: str, *, positive: bool = False) -> float:
    """A duration such as ``30s``; a bare number is seconds."""
    try:
        value_s = float(text)
    except ValueError:
        try:
            value_s = parse_duration_s(text)
        except UnitError as error:
            raise refused(option, text, error) from error
    if not 0 <= value_s <= MAX_PHASE_S or (positive and value_s == 0):
        least = "more than 0" if positive else "at least 0"
        raise refused(option, text, f"{least} and at most {MAX_PHASE_S:.0f} seconds")
    return value_s


def rate_rps(option: str, text: str, *, multiple_of_rps: float | None = None) -> float:
    """A rate such as ``2.5/s`` or ``90/min``; a bare number is a second's. ``3x`` where ``multiple_of_rps`` is given."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return parse_rate_rps(text) if multiple_of_rps is None else parse_burst_rate_rps(text, multiple_of_rps)
    except UnitError as error:
        raise refused(option, text, error) from error


def fraction(option: str, text: str) -> float:
    """A share such as ``0.5`` or ``50%``."""
    try:
        return parse_fraction(text)
    except UnitError as error:
        raise refused(option, text, error) from error


def tokens(option: str, text: str) -> dict[str, Any]:
    """A token distribution as the fields of ``requirement.TokenDistribution``; ``max`` follows where it is not given.

    Without ``max`` a log-normal ends at ``p95**2 / median``: about its 99.95th percentile.
    """
    body = text.strip()
    try:
        if found := _RANGE.fullmatch(body):
            return {"kind": "uniform", "min": parse_whole_number(found["low"]), "max": parse_whole_number(found["high"])}
        if "=" in body:
            return _lognormal(dict(_pair(part) for part in body.split(",")))
        if "," in body:
            return {"kind": "choice", "values": [parse_whole_number(part) for part in body.split(",")]}
        return {"kind": "constant", "value": parse_whole_number(body)}
    except UnitError as error:
        raise refused(option, text, TOKENS) from error


def steps(option: str, text: str) -> list[dict[str, float]]:
    """Rates with their durations, as the fields of ``requirement.arrival.Step``."""
    found = []
    for part in text.split(","):
        rate, colon, duration = part.partition(":")
        if not colon:
            raise refused(option, text, STEPS)
        found.append({"rate_rps": rate_rps(option, rate.strip()), "duration_s": seconds(option, duration, positive=True)})
    return found


def _pair(part: str) -> tuple[str, float]:
    key, _, value = part.partition("=")
    if key.strip() not in _LOGNORMAL_KEYS:
        raise UnitError(TOKENS)
    return key.strip(), parse_number(value)


def _lognormal(found: dict[str, float]) -> dict[str, Any]:
    if not {"median", "p95"} <= found.keys() or found["median"] <= 0:
        raise UnitError(TOKENS)
    most = found.get("max", max(found["p95"] ** 2 / found["median"], found["p95"] + 1))
    return {
        "kind": "lognormal",
        "median": found["median"],
        "p95": found["p95"],
        "min": round(found.get("min", 1)),
        "max": round(most),
    }
