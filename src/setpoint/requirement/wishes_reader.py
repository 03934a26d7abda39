"""Reads the ``plan`` section of a requirement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from setpoint.requirement.reading import Value
from setpoint.requirement.units import (
    FRACTIONS,
    PRICES,
    WHOLE_NUMBERS,
    parse_fraction,
    parse_usd_per_hour,
    parse_whole_number,
)
from setpoint.requirement.wishes import HardwarePrice, PlanWishes

HARDWARE = "a name that setpoint hardware list shows, such as h100-sxm"
PRECISIONS = "a precision such as bf16, fp8 or int4"
PRICE_LIST = "a price for each name, such as {h100-sxm: $2.50/h}"


def read_wishes(value: Value) -> PlanWishes | None:
    """The section, or ``None`` after noting what is wrong."""
    readers: dict[str, Callable[[Value], Any]] = {
        "hardware": lambda entry: _names(entry, HARDWARE),
        "max_gpus": lambda entry: entry.scalar(parse_whole_number, WHOLE_NUMBERS),
        "max_usd_per_hour": lambda entry: entry.scalar(parse_usd_per_hour, PRICES),
        "prices": _read_prices,
        "quantization": lambda entry: _names(entry, PRECISIONS),
        "kv_cache": lambda entry: _names(entry, PRECISIONS),
        "load_uncertainty": lambda entry: entry.scalar(parse_fraction, FRACTIONS),
    }
    return value.build(PlanWishes, value.read(readers))


def _names(value: Value, allowed: str) -> tuple[str, ...] | None:
    """A name, or a list of names."""
    if value.is_scalar:
        name = value.text(allowed)
        return None if name is None else (name,)
    return value.items(str, allowed)


def _read_prices(value: Value) -> tuple[HardwarePrice, ...] | None:
    entries = value.mapping(PRICE_LIST)
    if entries is None:
        return None
    prices = [
        entry.build(
            HardwarePrice, {"hardware": name, "usd_per_hour": entry.scalar(parse_usd_per_hour, PRICES)}, {"usd_per_hour": ""}
        )
        for name, entry in entries.items()
    ]
    good = tuple(price for price in prices if price is not None)
    return good if len(good) == len(prices) else None
