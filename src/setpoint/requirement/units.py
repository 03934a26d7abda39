"""Human units: ``300ms``, ``2.5/s``, ``3x``, ``95%``, ``$0.10/h``. Text in, SI numbers out.

Every function takes the text of one YAML scalar and raises ``UnitError`` whose message says what is allowed. Numbers
are plain decimals (``120``, ``0.5``, ``1e3``, ``10_000``), never YAML's octal or base-60 ones.
"""

from __future__ import annotations

import re

DURATION_UNITS_S = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
RATE_UNITS_S = {"s": 1.0, "min": 60.0, "h": 3600.0}

DURATIONS = "a duration with its unit, for example 300ms, 2s, 1.5min or 8h"
RATES = "a rate with its unit, for example 2.5/s, 90/min or 1000/h"
BURST_RATES = "a rate such as 7.5/s or 450/min, or a multiple of the sustained rate such as 3x"
FRACTIONS = "a fraction, for example 95% or 0.95"
RATIOS = "a ratio, for example 3 or 3x"
PRICES = "a price in US dollars an hour, for example 0.10 or $0.10/h"
FLAGS = "true or false"
WHOLE_NUMBERS = "a whole number"
NUMBERS = "a number"

_NUMBER = r"[+-]?(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
_QUANTITY = re.compile(rf"(?P<number>{_NUMBER})\s*(?P<unit>.*)")
_WHOLE = re.compile(r"[+-]?[0-9][0-9_]{0,17}")
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class UnitError(ValueError):
    """The text is not such a quantity. The message says what is allowed."""


def parse_number(text: str, allowed: str = NUMBERS) -> float:
    """A plain decimal number. Raises ``UnitError`` with ``allowed``."""
    match = re.fullmatch(_NUMBER, text.strip())
    if match is None:
        raise UnitError(allowed)
    return float(match[0].replace("_", ""))


def parse_whole_number(text: str) -> int:
    """A whole number of at most 18 digits."""
    match = _WHOLE.fullmatch(text.strip())
    if match is None:
        raise UnitError(WHOLE_NUMBERS)
    return int(match[0].replace("_", ""))


def parse_flag(text: str) -> bool:
    """``true`` or ``false`` (also ``yes``, ``no``, ``on``, ``off``, as YAML 1.1 has it)."""
    try:
        return _FLAGS[text.strip().lower()]
    except KeyError:
        raise UnitError(FLAGS) from None


def parse_duration_s(text: str) -> float:
    """Seconds from ``300ms``, ``2s``, ``1.5 min``. A bare number is refused: whether it means ms or s is a guess."""
    number, unit = _quantity(text, DURATIONS)
    if not unit:
        raise UnitError(f"{DURATIONS}; {text.strip()} has no unit: write {text.strip()}ms or {text.strip()}s")
    if unit == "m":
        raise UnitError(f"{DURATIONS}; m could be milli or minutes: write ms or min")
    if unit not in DURATION_UNITS_S:
        raise UnitError(DURATIONS)
    return number * DURATION_UNITS_S[unit]


def parse_rate_rps(text: str, allowed: str = RATES) -> float:
    """Requests per second from ``2.5/s``, ``90/min``. A bare number is refused."""
    number, unit = _quantity(text, allowed)
    if not unit:
        raise UnitError(f"{allowed}; {text.strip()} has no unit: write {text.strip()}/s")
    if not unit.startswith("/") or unit[1:].strip() not in RATE_UNITS_S:
        raise UnitError(allowed)
    return number / RATE_UNITS_S[unit[1:].strip()]


def parse_burst_rate_rps(text: str, sustained_rps: float) -> float:
    """Requests per second from a rate, or from ``3x``: a multiple of ``sustained_rps``."""
    number, unit = _quantity(text, BURST_RATES)
    if unit in ("x", "X", "×"):
        return number * sustained_rps
    return parse_rate_rps(text, BURST_RATES)


def parse_fraction(text: str) -> float:
    """A fraction from ``95%`` or ``0.95``."""
    number, unit = _quantity(text, FRACTIONS)
    if unit == "%":
        return number / 100
    if unit:
        raise UnitError(FRACTIONS)
    if number > 1:
        raise UnitError(f"{FRACTIONS}; for per cent write {text.strip()}%")
    return number


def parse_ratio(text: str) -> float:
    """A ratio from ``3`` or ``3x``."""
    number, unit = _quantity(text, RATIOS)
    if unit not in ("", "x", "X", "×"):
        raise UnitError(RATIOS)
    return number


def parse_usd_per_hour(text: str) -> float:
    """US dollars an hour from ``0.10``, ``$0.10`` or ``$0.10/h``."""
    body = re.sub(r"\s*(/|per)\s*(h|hour)$", "", text.strip())
    return parse_number(body.removeprefix("$"), PRICES)


def _quantity(text: str, allowed: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise UnitError(allowed)
    return float(match["number"].replace("_", "")), match["unit"].strip()
