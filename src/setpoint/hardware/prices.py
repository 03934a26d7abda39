"""Prices as an input: ``--price h100-sxm=2.5``, several times or separated by commas."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from setpoint.hardware.accelerator import Accelerator, accelerator
from setpoint.hardware.errors import HardwareError

MOST_USD_PER_H = 1e4


def parse_prices(options: Iterable[str]) -> dict[str, float]:
    """USD an hour of one device, by the accelerator's name. Raises ``HardwareError`` (and ``UnknownAccelerator``)."""
    prices: dict[str, float] = {}
    for option in (part for each in options for part in each.split(",") if part.strip()):
        name, equals, text = option.partition("=")
        try:
            usd_per_h = float(text)
        except ValueError:
            usd_per_h = -1.0
        if not equals or not 0 <= usd_per_h <= MOST_USD_PER_H:
            raise HardwareError(f"--price {option.strip()!r}: expected NAME=USD an hour of one device, such as h100-sxm=2.5")
        prices[accelerator(name).name] = usd_per_h
    return prices


def priced(device: Accelerator, prices: dict[str, float]) -> Accelerator:
    """``device`` at the price given for it, if one is."""
    if device.name not in prices:
        return device
    return replace(device, price_usd_per_h=prices[device.name], price_date="", price_source="given on the command line")
