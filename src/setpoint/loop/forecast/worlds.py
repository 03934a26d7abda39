"""What may differ from what is predicted: how fast the machine is as a whole, the noise of its steps, and who comes when.

A world is one way it may be. All candidates are forecast in the same worlds, so that what differs between two of them is the
configuration alone (common random numbers). The first ``CENTRAL`` worlds have steps as predicted and the arrivals of the plan:
their median is the prediction. The others are equally likely: stretches at the middles of equal parts of a log-normal with
median 1, each with noise of its own, every other one with arrivals of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp
from statistics import NormalDist

CENTRAL = 3
LIKELY = 10
EXTREME = 0.05
NOISE_SEED, ARRIVAL_SEED = 1_000_003, 7_919


@dataclass(frozen=True, slots=True)
class World:
    """``deviation``: how many standard errors slower than predicted every step is. ``arrivals``: seed of the load."""

    deviation: float
    arrivals: int
    noise: int

    def stretch(self, error: float) -> float:
        """By what factor time is longer, ``error`` being one standard deviation of its logarithm."""
        return exp(self.deviation * error)


def central_worlds(seed: int, count: int = CENTRAL) -> tuple[World, ...]:
    """Steps as predicted, the plan's arrivals."""
    return tuple(World(0.0, seed, NOISE_SEED * (seed + 1) + number) for number in range(count))


def extreme_worlds(seed: int) -> tuple[World, World]:
    """The plan's arrivals on a machine as fast, and as slow, as it is with a probability of ``EXTREME`` or less."""
    far = NormalDist().inv_cdf(1.0 - EXTREME)
    noise = NOISE_SEED * (seed + 1)
    return World(-far, seed, noise), World(far, seed, noise)


def likely_worlds(seed: int, count: int = LIKELY) -> tuple[World, ...]:
    """``count`` equally likely ones, from the fastest to the slowest."""
    return tuple(_likely(seed, count))


def _likely(seed: int, count: int) -> Iterator[World]:
    normal = NormalDist()
    for number in range(count):
        arrivals = seed if number % 2 else seed + ARRIVAL_SEED * (number + 1)
        yield World(normal.inv_cdf((number + 0.5) / count), arrivals, NOISE_SEED * (seed + 1) + CENTRAL + number)
