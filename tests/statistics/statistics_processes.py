"""Series with a known distribution and a known dependence, many at once, from a seed.

Latencies of independent requests; of a series that wanders (autoregressive, moving average); the true waiting and
sojourn times of M/M/1 and M/D/1 queues, which wander longer the higher they are; on-off episodes; gaps that the streams of a
batch share. Truth is in closed form, or from eight million values for M/D/1 and the mixtures that have none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from statistics import NormalDist

import numpy as np

from setpoint.statistics import FloatArray

NORMAL = NormalDist()
Draw = Callable[[np.random.Generator, int, int], FloatArray]


@dataclass(frozen=True)
class Process:
    """``draw(rng, runs, n)`` gives stationary series of shape ``[runs, n]``; ``truth(p)`` their p-th percentile."""

    name: str
    draw: Draw
    truth: Callable[[float], float]


def _numeric(draw: Draw) -> Callable[[float], float]:
    """The percentiles of a process without a closed form, from a very long run."""

    @lru_cache
    def values() -> FloatArray:
        return np.sort(draw(np.random.default_rng(99), 40, 200_000), axis=None)

    return lambda p: float(values()[math.ceil(len(values()) * p / 100.0) - 1])


def autoregressive(rng: np.random.Generator, runs: int, n: int, phi: float) -> FloatArray:
    """Standard normal series whose neighbours correlate by ``phi``."""
    series = rng.standard_normal((n, runs))
    for at in range(1, n):
        series[at] = phi * series[at - 1] + math.sqrt(1.0 - phi * phi) * series[at]
    return series.T


def moving_average(rng: np.random.Generator, runs: int, n: int, reach: int) -> FloatArray:
    """Standard normal series, each value the scaled sum of ``reach`` shocks."""
    sums = np.cumsum(np.concatenate((np.zeros((runs, 1)), rng.standard_normal((runs, n + reach))), axis=1), axis=1)
    return np.asarray((sums[:, reach : reach + n] - sums[:, :n]) / math.sqrt(reach), dtype=np.float64)


def _wandering(rng: np.random.Generator, runs: int, n: int, phi: float) -> FloatArray:
    return np.exp(0.5 * autoregressive(rng, runs, n, phi))


def _smooth(rng: np.random.Generator, runs: int, n: int, reach: int) -> FloatArray:
    return np.exp(0.5 * moving_average(rng, runs, n, reach))


def waiting_times(steps: FloatArray, first: FloatArray) -> FloatArray:
    """Lindley's recursion: the wait of each customer from ``steps`` (service minus gap to the next), the first given."""
    walk = np.cumsum(steps, axis=1)
    waits = walk - np.minimum(np.minimum.accumulate(walk, axis=1), -first[:, None])
    return np.concatenate((first[:, None], waits[:, :-1]), axis=1)


def _mm1(rng: np.random.Generator, runs: int, n: int, load: float, *, sojourn: bool) -> FloatArray:
    """M/M/1 with mean service time 1, begun in its steady state."""
    first = np.where(rng.random(runs) < 1.0 - load, 0.0, rng.exponential(1.0 / (1.0 - load), runs))
    service, gaps = rng.exponential(1.0, (runs, n)), rng.exponential(1.0 / load, (runs, n))
    waits = waiting_times(service - gaps, first)
    return waits + service if sojourn else waits


def _md1(rng: np.random.Generator, runs: int, n: int, load: float) -> FloatArray:
    """Waits of M/D/1 with service time 1, after a long start."""
    start = int(20.0 / (1.0 - load) ** 2)
    return waiting_times(1.0 - rng.exponential(1.0 / load, (runs, n + start)), np.zeros(runs))[:, start:]


def _mixture(rng: np.random.Generator, runs: int, n: int, share: float) -> FloatArray:
    """Around 0.1, and with probability ``share`` around 1."""
    slow = rng.random((runs, n)) < share
    z = rng.standard_normal((runs, n))
    return np.where(slow, np.exp(0.3 * z), 0.1 * np.exp(0.2 * z))


def _episodes(rng: np.random.Generator, runs: int, n: int) -> FloatArray:
    """Slow episodes of 12 values on average, a tenth of the time: a neighbour that comes and goes."""
    slow = np.empty((n, runs), dtype=np.bool_)
    slow[0] = rng.random(runs) < 0.1
    chance = rng.random((n, runs))
    for at in range(1, n):
        slow[at] = np.where(slow[at - 1], chance[at] >= 1.0 / 12.0, chance[at] < 1.0 / 108.0)
    return np.asarray(np.exp(0.3 * rng.standard_normal((runs, n))) * np.where(slow.T, 4.0, 1.0), dtype=np.float64)


def _shared_gaps(rng: np.random.Generator, runs: int, n: int, streams: int) -> FloatArray:
    """Gaps between tokens: every step of a batch gives one to each stream, all alike; step times wander."""
    steps = autoregressive(rng, runs, -(-n // streams), 0.7)
    return np.repeat(np.exp(0.3 * steps), streams, axis=1)[:, :n]


def _lognormal(spread: float) -> Callable[[float], float]:
    return lambda p: math.exp(spread * NORMAL.inv_cdf(p / 100.0))


def _exponential(mean: float, share: float = 1.0) -> Callable[[float], float]:
    """Percentiles of a variable that is 0, or with probability ``share`` exponential."""
    return lambda p: max(0.0, -mean * math.log((1.0 - p / 100.0) / share))


def _processes() -> list[Process]:
    found = [
        Process("lognormal", lambda rng, runs, n: np.exp(rng.standard_normal((runs, n))), _lognormal(1.0)),
        Process("exponential", lambda rng, runs, n: rng.exponential(1.0, (runs, n)), _exponential(1.0)),
        Process("pareto", lambda rng, runs, n: 1.0 + rng.pareto(3.0, (runs, n)), lambda p: (1.0 - p / 100.0) ** (-1 / 3)),
    ]
    for share in (0.1, 0.015):
        draw = partial(_mixture, share=share)
        found.append(Process(f"bimodal {share:g}", draw, _numeric(draw)))
    for phi in (0.5, 0.8, 0.9, 0.95):
        wander = partial(_wandering, phi=phi)
        found.append(Process(f"AR(1) {phi:g}", wander, _lognormal(0.5)))
    for reach in (5, 20):
        smooth = partial(_smooth, reach=reach)
        found.append(Process(f"MA({reach})", smooth, _lognormal(0.5)))
    for load in (0.5, 0.7, 0.9):
        wait = partial(_mm1, load=load, sojourn=False)
        stay = partial(_mm1, load=load, sojourn=True)
        fixed = partial(_md1, load=load)
        found.append(Process(f"M/M/1 wait {load:g}", wait, _exponential(1.0 / (1.0 - load), load)))
        found.append(Process(f"M/M/1 sojourn {load:g}", stay, _exponential(1.0 / (1.0 - load))))
        found.append(Process(f"M/D/1 wait {load:g}", fixed, _numeric(fixed)))
    found.append(Process("episodes", _episodes, _numeric(_episodes)))
    for streams in (8, 32):
        gaps = partial(_shared_gaps, streams=streams)
        found.append(Process(f"gaps shared by {streams}", gaps, _lognormal(0.3)))
    return found


PROCESSES = {process.name: process for process in _processes()}
