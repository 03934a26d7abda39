"""How near each limit is as the load of one replica grows: the curve from which knee, headroom and prices of limits follow.

An **excess** is how far a figure is from its limit as a factor: 1 is at the limit, at most 1 is met, 2 is twice as bad. For a
share that must be at least ``m`` it is ``(1 - share) / (1 - m)``. Between two loads it is interpolated on logarithms, as if it
were nowhere below ``LEAST_INTERPOLATED``.

If every step takes ``s`` times as long as predicted, a replica at ``rate`` requests/s is the predicted one at ``rate * s`` with
its time stretched by ``s``: latency(rate, s) = s * latency(rate * s, 1). So simulations with the predicted steps, at several
loads, also say what an error of the prediction would do; what is outside the steps, the front end, is not stretched. Exact
where decisions do not depend on absolute times (vLLM's own scheduler); for deadlines it is near, because limits and deadlines
do not stretch with the steps.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MOST_EXCESS = 1e6
LEAST_EXCESS = 1e-6
LEAST_INTERPOLATED = 0.1
"""How far below its limit a figure is counts no more from here on: a share of 0 would draw the knee to the load that misses."""

STRETCHES = np.exp(np.linspace(-1.2, 1.2, 25))
"""Factors on time at which a point of the curve knows its excesses; in between they are interpolated."""

KNEE_STEPS = 400


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What a simulated load came to. ``excess`` has shape [limits, len(STRETCHES)]: each limit with time stretched so."""

    rate_rps: float
    excess: Floats


class LoadCurve:
    """Excess of every limit over load and stretch, at least ``LEAST_INTERPOLATED``, interpolated on logarithms between points.

    Below the least load it is as there; beyond the highest it goes on as between the last two points, and never falls.
    ttft: places of the limits on TTFT, which may be off by more than steps are (``headroom``).
    """

    def __init__(self, points: Sequence[CurvePoint], limits: int, ttft: Collection[int] = ()) -> None:
        if not points:
            raise ValueError("a load curve needs a point")
        ordered = sorted(points, key=lambda point: point.rate_rps)
        self.rates_rps = np.array([point.rate_rps for point in ordered])
        self.limits = limits
        rows = range(max(limits, 1))
        self._ttft = [row for row in rows if row in ttft]
        self._others = [row for row in rows if row not in ttft]
        if limits:
            stacked = np.stack([np.clip(point.excess, LEAST_INTERPOLATED, MOST_EXCESS) for point in ordered])
        else:
            stacked = np.full((len(ordered), 1, len(STRETCHES)), LEAST_EXCESS)
        self._log_excess = np.log(stacked)  # [points, limits, stretches]
        self._log_rates = np.log(self.rates_rps)

    def excess(self, rate_rps: Floats, stretch: Floats, factors: Sequence[float] | None = None) -> Floats:
        """The largest excess over all limits; shapes of ``rate_rps`` and ``stretch`` broadcast to that of the result.

        ``factors``: each limit is taken times this (2: twice as much is allowed).
        """
        return self._largest(range(self._log_excess.shape[1]), rate_rps, stretch, factors)

    def excess_apart(self, rate_rps: Floats, stretch: Floats) -> tuple[Floats, Floats]:
        """The largest excess over the limits on TTFT (nothing is exceeded without any), and over all others."""
        return self._largest(self._ttft, rate_rps, stretch), self._largest(self._others, rate_rps, stretch)

    def _largest(
        self, rows: Sequence[int], rate_rps: Floats, stretch: Floats, factors: Sequence[float] | None = None
    ) -> Floats:
        rate, stretch = np.broadcast_arrays(np.asarray(rate_rps, dtype=np.float64), np.asarray(stretch, dtype=np.float64))
        found = np.full(rate.shape, LEAST_EXCESS)
        for limit in rows:
            single = np.exp(self._log_of(limit, np.log(rate * stretch), np.log(stretch)))
            found = np.maximum(found, single / (factors[limit] if factors is not None else 1.0))
        return found

    def of_limit(self, limit: int, rate_rps: float) -> float:
        """The excess of one limit at a load, time as predicted."""
        return float(np.exp(self._log_of(limit, np.log(np.array([rate_rps])), np.zeros(1)))[0])

    def met(self, rate_rps: float, stretch: float = 1.0, factors: Sequence[float] | None = None) -> bool:
        """Whether every limit holds."""
        return bool(self.excess(np.array([rate_rps]), np.array([stretch]), factors)[0] <= 1.0)

    def knee_rps(self, stretch: float = 1.0, factors: Sequence[float] | None = None) -> float:
        """The highest load of one replica at which every limit holds; 0 if none does.

        Searched up to twice the highest load that was simulated; what holds even there is told as that.
        """
        highest = 2.0 * float(self.rates_rps[-1])
        loads = np.exp(np.linspace(np.log(float(self.rates_rps[0]) / 20.0), np.log(highest), KNEE_STEPS))
        within = self.excess(loads, np.array([stretch]), factors) <= 1.0
        return float(loads[np.nonzero(within)[0][-1]]) if within.any() else 0.0

    def _log_of(self, limit: int, log_load: Floats, log_stretch: Floats) -> Floats:
        """Bilinear interpolation of ln(excess) of one limit over ln(load) and ln(stretch)."""
        table, loads = self._log_excess[:, limit, :], self._log_rates
        steps = np.log(STRETCHES)
        place = np.clip((log_stretch - steps[0]) / (steps[1] - steps[0]), 0, len(steps) - 1)
        low = np.minimum(place.astype(np.int64), len(steps) - 2)
        share = place - low
        if len(loads) == 1:
            only: Floats = table[0, low] * (1 - share) + table[0, low + 1] * share
            return only
        right = np.clip(np.searchsorted(loads, log_load), 1, len(loads) - 1)
        left = right - 1
        along = np.maximum((log_load - loads[left]) / (loads[right] - loads[left]), 0.0)
        at_left = table[left, low] * (1 - share) + table[left, low + 1] * share
        at_right = table[right, low] * (1 - share) + table[right, low + 1] * share
        change = at_right - at_left
        beyond = at_right + np.maximum(change, 0.0) * (along - 1.0)
        found = np.where(along > 1.0, beyond, at_left + change * along)
        return np.asarray(np.clip(found, np.log(LEAST_EXCESS), np.log(MOST_EXCESS)), dtype=np.float64)
