"""What load costs: replicas, price and power of an option at a load, and the objective that ranks options."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from setpoint.plan.curve import LoadCurve
from setpoint.plan.headroom import Uncertainty, is_sure, met_probability
from setpoint.plan.topology import Serving, Shape, Topology

MOST_REPLICAS = 4096
S_PER_H = 3600.0


class Goal(StrEnum):
    """What to prefer among candidates that hold: least of it is best, tokens a second per dollar excepted."""

    COST = "cost"
    TOKENS_PER_USD = "tokens-per-usd"
    LATENCY = "latency"
    POWER = "power"


@dataclass(frozen=True, slots=True)
class Option:
    """A replica (shape and serving configuration) whose load curve is known, and how far steps and TTFT may be off there.

    guess: whether that of steps is itself a guess (``StepTimer``); only_drafting: of nothing but its draft model's passes.
    """

    shape: Shape
    serving: Serving
    curve: LoadCurve
    step_error: float
    source: str
    ttft_error: float = 0.0
    guess: bool = False
    only_drafting: bool = False

    @property
    def name(self) -> str:
        """Such as ``h100-sxm tp1 bf16 vllm-256x8192``."""
        return f"{self.shape.name} {self.serving.name}"

    def topology(self, replicas: int) -> Topology:
        """The candidate of so many replicas."""
        return Topology.single(self.shape, self.serving, replicas)

    def uncertainty(self, load_error: float) -> Uncertainty:
        """What may differ from what was simulated of it, the load being known to ``load_error``."""
        return Uncertainty(self.step_error, load_error, self.ttft_error, self.guess)


def most_replicas(shape: Shape, max_gpus: int | None, max_usd_per_h: float | None = None) -> int:
    """How many replicas the bounds allow."""
    most = MOST_REPLICAS
    if max_gpus is not None:
        most = min(most, max_gpus // shape.gpus)
    if max_usd_per_h is not None and shape.usd_per_gpu_h:
        most = min(most, math.floor(max_usd_per_h / (shape.gpus * shape.usd_per_gpu_h) + 1e-9))
    return most


def replicas_needed(
    curve: LoadCurve, load_rps: float, *, most: int, factors: Sequence[float] | None = None, stretch: float = 1.0
) -> int | None:
    """The fewest replicas that share ``load_rps`` evenly and hold every limit, ``None`` if ``most`` do not."""
    knee_rps = curve.knee_rps(stretch, factors)
    if knee_rps <= 0:
        return None
    fewest = max(1, math.ceil(load_rps / knee_rps * (1 - 1e-9)))
    for replicas in range(fewest, min(most, 2 * fewest + 8) + 1):
        if curve.met(load_rps / replicas, stretch, factors):
            return replicas
    return None


def replicas_for_confidence(
    curve: LoadCurve, load_rps: float, uncertainty: Uncertainty, *, confidence: float, most: int
) -> int | None:
    """The fewest replicas that are sure (``Headroom.sure``).

    Where none are, as with a guess, the fewest whose limits hold with probability ``confidence``; ``None``: nor are there any.
    """
    fewest = replicas_needed(curve, load_rps, most=most)
    if fewest is None:
        return None
    counts = range(fewest, min(most, 4 * fewest + 8) + 1)
    sure = _first(counts, lambda replicas: is_sure(curve, load_rps / replicas, uncertainty, confidence))
    return sure or _first(counts, lambda replicas: met_probability(curve, load_rps / replicas, uncertainty) >= confidence)


def _first(counts: range, enough: Callable[[int], bool]) -> int | None:
    """The least count that is ``enough``, more being enough as well; ``None`` if the largest is not."""
    if not enough(counts[-1]):
        return None
    return counts[bisect_left(counts, True, hi=len(counts) - 1, key=enough)]


def usd_per_good_request(topology: Topology, good_rps: float) -> float | None:
    """Price a second over good requests a second."""
    price = topology.usd_per_h
    return None if price is None or good_rps <= 0 else price / S_PER_H / good_rps


def usd_at_scale(option: Option, factors: Sequence[float] | None = None) -> float | None:
    """USD a request where load is so large that replicas need not be whole: price of a replica over its knee."""
    knee_rps = option.curve.knee_rps(1.0, factors)
    if option.shape.usd_per_gpu_h is None or knee_rps <= 0:
        return None
    return option.shape.gpus * option.shape.usd_per_gpu_h / S_PER_H / knee_rps
