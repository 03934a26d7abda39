"""A rate that changes with time, and arrivals that follow it: time transformation of a Poisson process of rate 1.

With the expected count ``Λ(t)`` from 0 to t, the points ``Λ⁻¹(u)`` of a Poisson process u of rate 1 are a Poisson process
of rate ``Λ'(t)`` (Çinlar, Introduction to Stochastic Processes, 1975, section 4.7). The rate is linear in pieces, so the
inverse is a quadratic formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from setpoint.requirement import Arrival, ArrivalProcess

MAX_PIECES = 1_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RateCurve:
    """Rates in requests per second over ``[0, duration_s)``, linear in pieces; every array has shape ``[pieces]``.

    starts_s: where each piece begins. rates_rps: the rate there. slopes: how fast the rate rises in it, in 1/s².
    expected: requests expected before the piece. total: requests expected in all.
    """

    starts_s: Floats
    rates_rps: Floats
    slopes: Floats
    expected: Floats
    total: float
    duration_s: float

    def rate_rps(self, times_s: Floats) -> Floats:
        """The rate at each time, shape as ``times_s``."""
        piece = np.searchsorted(self.starts_s, times_s, side="right") - 1
        return self.rates_rps[piece] + self.slopes[piece] * (times_s - self.starts_s[piece])

    def expected_before(self, times_s: Floats) -> Floats:
        """The requests expected before each time, shape as ``times_s``."""
        piece = np.searchsorted(self.starts_s, times_s, side="right") - 1
        past_s = times_s - self.starts_s[piece]
        return self.expected[piece] + past_s * (self.rates_rps[piece] + self.slopes[piece] * past_s / 2)

    def times_s(self, counts: Floats) -> Floats:
        """When so many requests are to be expected, shape as ``counts``, each in ``[0, total)``."""
        piece = np.searchsorted(self.expected, counts, side="right") - 1
        left, rate = counts - self.expected[piece], self.rates_rps[piece]
        # The root of rate * t + slope * t**2 / 2 = left, in the form that loses no digits where the slope is near 0.
        root = np.sqrt(np.maximum(rate**2 + 2 * self.slopes[piece] * left, 0.0))
        times = self.starts_s[piece] + 2 * left / np.maximum(rate + root, np.finfo(float).tiny)
        return np.minimum(times, np.nextafter(self.duration_s, 0.0))


def curve_of(arrival: Arrival, duration_s: float) -> RateCurve:
    """The curve of a ``ramp``, ``step`` or ``on_off`` process over a phase of ``duration_s``.

    Raises ``ValueError`` for more than ``MAX_PIECES`` pieces, or for another process.
    """
    if arrival.process is ArrivalProcess.RAMP and arrival.to_rps is not None:
        slope = (arrival.to_rps - arrival.rate_rps) / duration_s
        return _curve([(arrival.rate_rps, duration_s)], duration_s, np.array([slope]))
    if arrival.pattern_s is None:
        raise ValueError(f"{arrival.process.value} arrivals have no rate that changes")
    if duration_s / arrival.pattern_s * len(arrival.pattern) > MAX_PIECES:
        raise ValueError(
            f"a pattern of {arrival.pattern_s:g} s would repeat too often in {duration_s:g} s: make its steps longer"
        )
    pieces: list[tuple[float, float]] = []
    end_s = 0.0
    for step in cycle(arrival.pattern):
        if end_s >= duration_s:
            break
        pieces.append((step.rate_rps, step.duration_s))
        end_s += step.duration_s
    return _curve(pieces, duration_s, np.zeros(len(pieces)))


def _curve(pieces: Sequence[tuple[float, float]], duration_s: float, slopes: Floats) -> RateCurve:
    """The curve of pieces that have a rate at their beginning and a length; the last is cut to the phase."""
    rates, lengths = (np.array(column) for column in zip(*pieces, strict=True))
    starts = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    lengths = np.minimum(lengths, duration_s - starts)
    counts = lengths * (rates + slopes * lengths / 2)
    expected = np.concatenate([[0.0], np.cumsum(counts)])
    return RateCurve(starts, rates, slopes, expected[:-1], float(expected[-1]), duration_s)
