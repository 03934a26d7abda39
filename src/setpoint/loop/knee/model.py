"""A small model of a server, fitted to what a client saw of it.

``n`` requests in service share the server equally, each slowed by ``1 + slope * max(0, n - free)``; at most ``most`` are in
service, the others wait in order of arrival. Three numbers cover what the search meets: processor sharing over one or
several cores, first come first served, an engine whose step time grows with its batch, and a bounded batch with a queue.

A request's work is what it attained between its start and its end, so for given numbers the works of all requests follow
from the arrivals and ends. The likelihood of what was seen is, up to a constant, the product over the requests of
``f(work) * speed at its end``, with ``f`` the density of the works (each request in service ends at the rate hazard(work) *
speed). ``f`` is estimated from the works themselves by a kernel density on a log scale, so no shape of the sizes
is assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from setpoint.loop.knee.occupancy import Occupancy
from setpoint.statistics import FloatArray

SLOPES = (0.0, 0.01, 0.02, 0.04, 0.07, 0.11, 0.17, 0.25, 0.35, 0.5, 0.7, 0.85, 1.0)
SLOPE_MAX = 1.5
REFINEMENTS = 40
PRICE = 4.0
CELLS_MAX = 4096
CELLS_PER_WIDTH = 4
KERNEL_WIDTHS = 4
LEAST_WIDTH = 0.01
IMPOSSIBLE_SHARE = 0.002


@dataclass(frozen=True, slots=True)
class ServerModel:
    """Slowdown 1 up to ``free`` requests in service, ``slope`` more for each beyond; ``most`` in service (None: all)."""

    free: float = 1.0
    slope: float = 1.0
    most: int | None = None

    @property
    def numbers(self) -> int:
        """How many numbers had to be chosen: none for one shared server, one for more cores or for a bound, and so on."""
        shared = self.free == 1.0 or self.most == self.free
        conserving = abs(self.slope * self.free - 1.0) < 1e-9 and self.free == round(self.free)
        limited = self.most is not None
        return limited + (not shared) + (not conserving and self.most != self.free)

    def speeds(self, present: int) -> FloatArray:
        """Speed of each request in service with 0, 1, ... ``present`` in the system, shape ``[present + 1]``."""
        count = np.arange(present + 1, dtype=np.float64)
        served = count if self.most is None else np.minimum(count, self.most)
        return 1.0 / (1.0 + self.slope * np.maximum(0.0, served - self.free))


@dataclass(frozen=True, slots=True)
class Works:
    """What each request attained up to its end, seconds alone; ``weight`` for drawing. Shapes ``[n]``."""

    work: FloatArray
    weight: FloatArray


class Evidence:
    """The probes seen so far, each with a weight: those near the knee count most, because no model holds everywhere."""

    def __init__(self, probes: list[Occupancy], weights: list[float]) -> None:
        self._probes = probes
        self._weights = weights
        self.most_present = max((probe.most_present for probe in probes), default=0)

    def works(self, model: ServerModel) -> Works:
        """The works of all ended requests under ``model``."""
        works, weights = [], []
        for probe, weight in zip(self._probes, self._weights, strict=True):
            works.append(self._attained(probe, model))
            weights.append(np.full(len(works[-1]), weight))
        return Works(np.maximum(np.concatenate(works), 0.0), np.concatenate(weights))

    def _attained(self, probe: Occupancy, model: ServerModel) -> FloatArray:
        clock = probe.clock(model.speeds(self.most_present))
        return (clock[probe.left] - clock[probe.started(model.most)])[probe.ended]

    def log_likelihood(self, model: ServerModel) -> float:
        """Of ``model``, with the density of the works estimated under it; -inf where it contradicts what was seen."""
        works, speeds, weights = [], [], []
        table = model.speeds(self.most_present)
        for probe, weight in zip(self._probes, self._weights, strict=True):
            works.append(self._attained(probe, model))
            speeds.append(table[probe.before_end()[probe.ended]])
            weights.append(np.full(len(works[-1]), weight))
        work, weight_of = np.concatenate(works), np.concatenate(weights)
        impossible = work <= 0.0
        if not len(work) or impossible.mean() > IMPOSSIBLE_SHARE:
            return -math.inf
        logs = np.log(np.where(impossible, work.max() * 1e-9, work))
        terms = log_density(logs, weight_of) - logs + np.log(np.concatenate(speeds))
        return float((weight_of * terms).sum())


def log_density(values: FloatArray, weights: FloatArray) -> FloatArray:
    """The log of a Gaussian kernel density of weighted ``values``, at the values; Silverman's width, shape ``[n]``.

    The values are put on a grid of a quarter of the width, so the cost is linear in them.
    """
    total = float(weights.sum())
    low_quartile, high_quartile = np.percentile(values, (25, 75))
    spread = min(float(values.std()), float(high_quartile - low_quartile) / 1.34) or float(values.std())
    width = max(0.9 * spread * len(values) ** -0.2, LEAST_WIDTH)
    low, high = float(values.min()) - KERNEL_WIDTHS * width, float(values.max()) + KERNEL_WIDTHS * width
    cell = max(width / CELLS_PER_WIDTH, (high - low) / CELLS_MAX)
    place = (values - low) / cell
    left = place.astype(np.int64)
    share = place - left
    cells = int((high - low) / cell) + 2
    heights = np.bincount(left, weights * (1.0 - share), cells) + np.bincount(left + 1, weights * share, cells)
    reach = np.arange(-KERNEL_WIDTHS * CELLS_PER_WIDTH, KERNEL_WIDTHS * CELLS_PER_WIDTH + 1) * cell / width
    kernel = np.exp(-0.5 * reach**2)
    density = np.convolve(heights, kernel / (kernel.sum() * cell), "same")[:cells] / total
    logs: FloatArray = np.log(np.interp(place, np.arange(cells), density) + 1e-300)
    return logs


def fit_model(evidence: Evidence, start: ServerModel | None = None) -> ServerModel:
    """The most likely model: a coarse grid (unless ``start`` is given), then single steps that shrink.

    Every number that a simpler model does without has to earn ``PRICE`` in log likelihood.
    """

    def worth(model: ServerModel) -> float:
        return evidence.log_likelihood(model) - PRICE * model.numbers

    best, value = start, -math.inf if start is None else worth(start)
    if best is None or value == -math.inf:
        best, value = max(((model, worth(model)) for model in _grid(evidence.most_present)), key=_second)
    step = 0.5
    for _ in range(REFINEMENTS):
        near = [(model, worth(model)) for model in _neighbours(best, step, evidence.most_present)]
        found, found_value = max(near, key=_second)
        if found_value > value + 1e-9:
            best, value = found, found_value
        elif step < 0.04:
            break
        else:
            step /= 2.0
    return best


def _second(pair: tuple[ServerModel, float]) -> float:
    return pair[1]


def _grid(most_present: int) -> list[ServerModel]:
    powers = [2**k for k in range(12) if 2**k < most_present]
    models = [ServerModel(1.0, slope, most) for slope in SLOPES for most in [None, *powers[1:]]]
    models += [ServerModel(float(most), 1.0 / most, most) for most in powers]
    models += [ServerModel(float(free), 1.0 / free, most) for free in powers[1:] for most in [None, *powers]]
    return models


def _neighbours(model: ServerModel, step: float, most_present: int) -> list[ServerModel]:
    """Models one step away in one number, ``step`` being relative; a bound on those in service may come and go."""
    slopes = [min(SLOPE_MAX, model.slope * (1.0 + step) + 0.01 * step), max(0.0, model.slope / (1.0 + step) - 0.01 * step)]
    frees = [min(model.free * (1.0 + step), most_present + 1.0), max(1.0, model.free / (1.0 + step))]
    found = [ServerModel(model.free, slope, model.most) for slope in slopes]
    found += [ServerModel(free, model.slope, model.most) for free in frees]
    found += [ServerModel(free, min(SLOPE_MAX, model.slope * free / model.free), model.most) for free in frees]
    found += [ServerModel(free, min(SLOPE_MAX, model.slope * model.free / free), model.most) for free in frees]
    if model.most is None:
        mosts: list[int | None] = [max(1, math.floor(most_present / (1.0 + step)))]
    else:
        move = max(1, round(model.most * step))
        mosts = [max(1, model.most - move), model.most + move if model.most + move < most_present else None]
    found += [ServerModel(model.free, model.slope, most) for most in mosts]
    whole = float(round(model.free))
    found += [ServerModel(whole, 1.0 / whole, most) for most in (model.most, None)]
    found += [ServerModel(1.0, model.slope, model.most), ServerModel(model.free, model.slope, None), ServerModel()]
    if model.most is not None:
        found.append(ServerModel(float(model.most), 1.0 / model.most, model.most))
    return found
