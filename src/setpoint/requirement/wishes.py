"""What a plan may choose from: hardware, its prices, how many, precisions; and how well the load is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, StringConstraints

from setpoint.requirement.part import Fault, Part

MOST_HARDWARE = 32
MAX_GPUS = 100_000

Name = Annotated[str, StringConstraints(min_length=1, max_length=63)]
UsdPerHour = Annotated[float, Field(gt=0, le=1e6)]


class HardwarePrice(Part):
    """What one device of a kind costs an hour."""

    hardware: Name
    usd_per_hour: UsdPerHour


class PlanWishes(Part):
    """Bounds and wishes of ``setpoint plan``; a server does not look at them.

    hardware: names of accelerators to choose from, none: those of the catalogue that have a price. max_gpus, max_usd_per_hour:
    of all replicas together. quantization, kv_cache: precisions of weights and of the cache to choose from, none: the model's
    own. load_uncertainty: relative standard deviation of the load that will come against the one stated.
    """

    hardware: tuple[Name, ...] = Field(default=(), max_length=MOST_HARDWARE)
    max_gpus: int | None = Field(default=None, ge=1, le=MAX_GPUS)
    max_usd_per_hour: float | None = Field(default=None, gt=0, le=1e9)
    prices: tuple[HardwarePrice, ...] = Field(default=(), max_length=MOST_HARDWARE)
    quantization: tuple[Name, ...] = Field(default=(), max_length=8)
    kv_cache: tuple[Name, ...] = Field(default=(), max_length=8)
    load_uncertainty: float = Field(default=0.1, ge=0, le=1)

    def faults(self) -> Iterator[Fault]:
        """Every name once."""
        for field in ("hardware", "quantization", "kv_cache"):
            names = getattr(self, field)
            if len(set(names)) < len(names):
                yield Fault((field,), "every name once")
