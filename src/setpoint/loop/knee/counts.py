"""Where the knee lies when only counts are known: a posterior over (knee, steepness) on a grid.

The share of bad requests of a queue falls off exponentially with the distance to its capacity: ``-ln share = A (1 - rate /
capacity)`` holds exactly for M/M/1 and nearly so for processor sharing. With the allowed share ``p`` at the knee the
capacity is ``knee / (1 - ln(1/p) / A)``, which leaves two unknowns: the knee, and ``A``, which says how near capacity it is.
A probe far over the knee says only that: its queue had no time to grow to what a long run would show.
Outcomes that follow each other are alike and come in clumps, so most probes show fewer bad ones than the long run does and a
few show many: the number of bad ones is taken as beta-binomial, as dispersed as ``independent`` samples would make it.

When it is wrong: where the answers' own lengths, not their waiting, make them late, and below about 80 % load, this is worth
far less than a trace; its interval says so.
"""

from __future__ import annotations

import math

import numpy as np

from setpoint.loop.knee.estimate import NEAR, Estimate
from setpoint.loop.knee.probes import Count, KneeOptions, ProbeResult
from setpoint.statistics import FloatArray

CELLS = 240
STEEPNESSES = 24
LOADS = (0.3, 0.98)
REACH = math.log(6.0)
FAR_WEIGHT = 0.1
SHARE_HIGHEST = 0.98
EDGE_MASS = 0.25
CLUMPS, WIDENED = 2.0, 1.5
FAR_TIMES, FAR_SHARE, EDGE_WIDTH = 4.0, 0.15, 0.03


class CountEstimator:
    """For probes without traces, and for servers that are like no model."""

    def __init__(self, options: KneeOptions) -> None:
        self._options = options

    def estimate(self, results: list[ProbeResult], *, near: float | None) -> Estimate:
        """The least of the knees by each criterion; ``near``: the logarithm of the last estimate, which weighs the probes."""
        logs = np.log([result.rate_rps for result in results])
        grid = np.linspace(logs.min() - REACH, logs.max() + REACH, CELLS)
        weights = np.ones(len(logs))
        if near is not None:
            weights = np.maximum(np.exp(-0.5 * ((logs - near) / (2.0 * NEAR)) ** 2), FAR_WEIGHT)
        found = []
        for place, criterion in enumerate(self._options.criteria):
            counts = [result.count(place) for result in results]
            found.append(self._one(grid, logs, weights, counts, criterion.allowed, place))
        return min(found, key=lambda estimate: estimate.log_rate)

    def _one(
        self, grid: FloatArray, logs: FloatArray, weights: FloatArray, counts: list[Count], allowed: float, place: int
    ) -> Estimate:
        loads = np.linspace(*LOADS, STEEPNESSES)
        steepness = math.log(1.0 / allowed) / (1.0 - loads)
        # Shapes: knee, steepness, probe.
        ratio = np.exp(logs[None, None, :] - grid[:, None, None]) * loads[None, :, None]
        share = np.clip(np.exp(np.minimum(-steepness[None, :, None] * (1.0 - ratio), 0.0)), 1e-9, SHARE_HIGHEST)
        independent = np.array([_independent(count, loads) for count in counts]).T
        samples = np.array([max(count.samples, 1.0) for count in counts])
        bad = np.array([count.bad for count in counts]) / samples
        terms = _beta_binomial(bad * samples, samples, share, np.maximum(independent, 2.0)[None])
        far = bad > max(FAR_TIMES * allowed, FAR_SHARE)
        over = -np.logaddexp(0.0, (grid[:, None] - logs[None, :]) / EDGE_WIDTH)
        log_posterior = np.where(far, over[:, None, :], terms * weights).sum(axis=2)
        posterior = np.exp(log_posterior - log_posterior.max()).sum(axis=1)
        posterior /= posterior.sum()
        edge = CELLS // 12
        if posterior[-edge:].sum() > EDGE_MASS * edge / CELLS and bad.max() <= allowed:
            return Estimate(math.inf, math.inf, place)
        if posterior[:edge].sum() > EDGE_MASS * edge / CELLS and bad.min() > allowed:
            return Estimate(-math.inf, math.inf, place)
        mean = float((posterior * grid).sum())
        spread = math.sqrt(float((posterior * (grid - mean) ** 2).sum()))
        return Estimate(mean, WIDENED * max(spread, float(grid[1] - grid[0]) / 2.0), place)


def _beta_binomial(bad: FloatArray, samples: FloatArray, share: FloatArray, independent: FloatArray) -> FloatArray:
    """Log of the chance of ``bad`` of ``samples`` if their mean share is ``share``, up to what depends on the data alone."""
    spread = (independent - 1.0) * samples / np.maximum(samples - independent, 1.0)
    one, other = share * spread, (1.0 - share) * spread
    terms = _log_gamma(bad + one) + _log_gamma(samples - bad + other) - _log_gamma(samples + spread)
    found: FloatArray = terms - _log_gamma(one) - _log_gamma(other) + _log_gamma(spread)
    return found


def _log_gamma(x: FloatArray) -> FloatArray:
    """Stirling's series above 7, reached by the recurrence; relative error below 1e-8."""
    product, y = np.ones_like(x), x
    for _ in range(7):
        low = y < 7.0
        product = np.where(low, product * y, product)
        y = np.where(low, y + 1.0, y)
    series = (y - 0.5) * np.log(y) - y + 0.5 * math.log(2.0 * math.pi) + 1.0 / (12.0 * y) - 1.0 / (360.0 * y**3)
    found: FloatArray = series - np.log(product)
    return found


def _independent(count: Count, loads: FloatArray) -> FloatArray:
    """How many independent samples the probe is worth at each load of the knee, shape ``[loads]``."""
    if count.effective_n is not None:
        return np.full(len(loads), count.effective_n / CLUMPS)
    return count.samples * (1.0 - loads) / (1.0 + loads) / CLUMPS
