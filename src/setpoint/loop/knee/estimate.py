"""Where the knee lies, from the probes so far: through a fitted server where traces are at hand, else from counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from setpoint.loop.knee.model import Evidence, ServerModel, fit_model
from setpoint.loop.knee.occupancy import Occupancy
from setpoint.loop.knee.probes import CurvePoint, KneeOptions, ProbeResult, ProbeTrace
from setpoint.loop.knee.sizes import work_source
from setpoint.loop.knee.steady import Twin, learn_habits, steady_gaps
from setpoint.statistics import FloatArray, IntArray

NORMAL = NormalDist()
ROUGH_REQUESTS, MIDDLE_REQUESTS, FINE_REQUESTS = 8_000, 24_000, 100_000
REPLAYS = 10
DISCREPANCY_REACH, DISCREPANCY_MASS, DISCREPANCY_LEAST = 0.15, 1.5, 0.1
SURELY, SHIFT_MAX = 2.5, 1.0
NEAR, FAR_WEIGHT = 0.35, 0.15
FIRST_STEP, STEP_GROWTH = 0.1, 1.7
ROOT_STEPS, ROOT_WIDTH, ROOT_EXCESS = 8, 0.01, 0.01
SLOPE_SPAN = 0.05
SLOPE_LEAST = 0.3
MODEL_ERROR, MODEL_FLOOR = 1.2, 0.015
LIKENESS = 6.0
CURVE = (0.25, 0.4, 0.55, 0.7, 0.8, 0.87, 0.92, 0.96, 1.0, 1.04, 1.08, 1.13, 1.2, 1.3)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The knee's natural logarithm and its standard error; infinite (either sign) where the probes do not bound it.

    criterion: which is missed first. twin: the server fitted to the probes, if there is one; shift: by how much real probes
    were worse than it, in standard normal units, shape ``[criteria]``. misfit: how unlike the twin they were altogether.
    """

    log_rate: float
    error: float
    criterion: int
    twin: Twin | None = None
    shift: FloatArray | None = None
    misfit: float = 0.0


@dataclass(frozen=True, slots=True)
class Replayed:
    """Bad shares of the probes, those of the twin on the same arrivals, and how surprising the former are.

    Shapes ``[probes, criteria]``. A probe's share is ranked among replays, because shares of a few hundred requests are too
    skewed for their variance to mean much; ``scores`` are the ranks as standard normal deviates.
    """

    seen: FloatArray
    expected: FloatArray
    scores: FloatArray

    @property
    def misfit(self) -> float:
        """The mean square of the scores by the worst criterion: about 1 for a right twin, at most 2.9 with 10 replays."""
        return float((self.scores**2).mean(axis=0).max())


class TwinEstimator:
    """Fits a server to the traces, and finds the rate at which it would miss the requirement in the long run."""

    def __init__(self, options: KneeOptions) -> None:
        self._options = options
        self._allowed = np.array([NORMAL.inv_cdf(criterion.allowed) for criterion in options.criteria])
        self._gaps: dict[int, FloatArray] = {}
        self._model: ServerModel | None = None

    def estimate(self, results: list[ProbeResult], *, near: float | None, fine: bool) -> Estimate:
        """``near``: the logarithm of the last estimate, if any. ``fine``: run the twin for longer."""
        traces = [result.trace for result in results if result.trace is not None]
        probes = [Occupancy(trace) for trace in traces]
        logs = np.log([result.rate_rps for result in results])
        centre = near if near is not None else float(logs[-1])
        for _ in range(2):
            weights = _nearness(logs, centre)
            twin = self._fit(traces, probes, weights)
            rough = self._root(twin, centre, ROUGH_REQUESTS, np.zeros(len(self._allowed)))
            if not math.isfinite(rough) or abs(rough - centre) < NEAR:
                break
            centre = rough
        replayed = self._replay(twin, traces)
        if not math.isfinite(rough):
            worst = int(np.argmax(self._excess(twin, float(logs.max()), ROUGH_REQUESTS)))
            return Estimate(rough, math.inf, worst, twin, misfit=replayed.misfit)
        shift = self._discrepancy(replayed, logs, rough)
        seen = float(sum(weight * len(probe) for weight, probe in zip(weights, probes, strict=True)))
        requests = FINE_REQUESTS if fine else MIDDLE_REQUESTS
        return replace(self._refine(twin, seen, rough, shift, requests), misfit=replayed.misfit)

    def _fit(self, traces: list[ProbeTrace], probes: list[Occupancy], weights: FloatArray) -> Twin:
        """The server that the weighted probes were most likely to have met."""
        evidence = Evidence(probes, weights.tolist())
        self._model = fit_model(evidence)
        source = work_source(evidence.works(self._model), _sizes(traces, probes), self._options.sizes)
        habits = learn_habits(traces, probes, weights.tolist(), self._options.criteria)
        return Twin(self._model, source, habits, self._options.criteria)

    def expected(self, estimate: Estimate, log_rate: float) -> float | None:
        """The bad share by the estimate's criterion in the long run at a rate; ``None`` without a fitted server."""
        if estimate.twin is None:
            return None
        return 1.0 - self._good(estimate, log_rate)[estimate.criterion]

    def curve(self, estimate: Estimate) -> tuple[CurvePoint, ...]:
        """Good shares in the long run at rates around the knee, as ``estimate`` has them; empty without a fitted server."""
        if estimate.twin is None or not math.isfinite(estimate.log_rate):
            return ()
        places = [estimate.log_rate + math.log(factor) for factor in CURVE]
        return tuple(CurvePoint(math.exp(place), self._good(estimate, place)) for place in places)

    def _good(self, estimate: Estimate, log_rate: float) -> tuple[float, ...]:
        assert estimate.twin is not None
        shift = np.zeros(len(self._allowed)) if estimate.shift is None else estimate.shift
        units = self._excess(estimate.twin, log_rate, ROUGH_REQUESTS) + self._allowed + shift
        return tuple(1.0 - NORMAL.cdf(float(unit)) for unit in units)

    def _excess(self, twin: Twin, log_rate: float, requests: int) -> FloatArray:
        """By how much each criterion's bad share is over the allowed one, in standard normal units."""
        if requests not in self._gaps:
            self._gaps[requests] = steady_gaps(self._options.gaps, requests, self._options.seed)
        shares = twin.steady(math.exp(log_rate), self._gaps[requests], self._options.seed)
        excess: FloatArray = _normal_units(shares, requests) - self._allowed
        return excess

    def _root(self, twin: Twin, start: float, requests: int, shift: FloatArray) -> float:
        """Where the worst excess (with ``shift`` added) crosses zero; infinite if it does not within wide limits."""

        def over(log_rate: float) -> float:
            return float(np.max(self._excess(twin, log_rate, requests) + shift))

        ends = math.log(self._options.least_rps) - 1.0, math.log(self._options.most_rps) + 1.0
        here, value = start, over(start)
        step = -FIRST_STEP if value > 0.0 else FIRST_STEP
        while True:
            there = here + step
            if not ends[0] < there < ends[1]:
                return math.copysign(math.inf, step)
            beyond = over(there)
            if (beyond > 0.0) != (value > 0.0):
                break
            here, value, step = there, beyond, step * STEP_GROWTH
        return _regula_falsi(over, (here, value), (there, beyond))

    def _replay(self, twin: Twin, traces: list[ProbeTrace]) -> Replayed:
        """The twin on the arrivals of every probe, several times over."""
        seen, expected, scores = [], [], []
        for trace in traces:
            offset_s = trace.arrival_s - trace.arrival_s[0]
            replays = np.array([twin.shares(offset_s, self._options.seed + 101 + k) for k in range(REPLAYS)])
            shares = (trace.bad * trace.weight).sum(axis=1) / np.maximum(trace.weight.sum(axis=1), 1.0)
            below, alike = (replays < shares).sum(axis=0), (replays == shares).sum(axis=0)
            seen.append(shares)
            expected.append(replays.mean(axis=0))
            scores.append(_inverse((below + 0.5 * alike + 0.5) / (REPLAYS + 1.0)))
        return Replayed(np.array(seen), np.array(expected), np.array(scores))

    def _discrepancy(self, replayed: Replayed, logs: FloatArray, centre: float) -> tuple[FloatArray, FloatArray]:
        """By how much real probes near ``centre`` were worse than the twin on the same arrivals, and the standard error.

        In standard normal units, by criterion. What is within the noise of the probes is taken as zero (positive-part
        shrinkage), so a twin that is right is left alone and one that is wrong is corrected by what was really seen.
        """
        near = np.exp(-0.5 * ((logs - centre) / DISCREPANCY_REACH) ** 2)
        near = np.where(near < DISCREPANCY_LEAST, 0.0, near)
        mass = float(near.sum())
        if mass < DISCREPANCY_MASS:
            return np.zeros(len(self._allowed)), np.zeros(len(self._allowed))
        score = near @ replayed.scores
        sure = np.abs(score) / math.sqrt(float((near**2).sum()))
        kept = np.clip(1.0 - (SURELY / np.maximum(sure, 1e-9)) ** 2, 0.0, 1.0)
        samples = int(mass * self._options.requests_max)
        seen, expected = near @ replayed.seen / mass, near @ replayed.expected / mass
        shift = np.clip(_normal_units(seen, samples) - _normal_units(expected, samples), -SHIFT_MAX, SHIFT_MAX)
        shift = np.where(np.sign(shift) == np.sign(score), shift, 0.0) * kept
        return shift, np.where(kept > 0, np.abs(shift) / np.maximum(sure, 1.0), 0.0)

    def _refine(
        self, twin: Twin, seen: float, rough: float, discrepancy: tuple[FloatArray, FloatArray], requests: int
    ) -> Estimate:
        """A straight line through the excess around the root, from longer runs, and the error of its zero.

        seen: how many requests the twin was learned from. The error has the mean work's share (it moves the knee one for
        one), the tail's, as far as the works vary, that of any model of a real server, the length of the runs made here
        and the discrepancy.
        """
        shift, shift_error = discrepancy
        centre = self._root(twin, rough, ROUGH_REQUESTS, shift) if shift.any() else rough
        if not math.isfinite(centre):
            centre, shift = rough, np.zeros_like(shift)
        places = np.array([centre - SLOPE_SPAN, centre + SLOPE_SPAN])
        excess = np.array([self._excess(twin, place, requests) + shift for place in places])
        worst = int(np.argmax(excess.mean(axis=0)))
        low, high = excess[:, worst]
        slope = max((high - low) / (2.0 * SLOPE_SPAN), SLOPE_LEAST)
        log_rate = centre - float(np.clip((low + high) / 2.0 / slope, -4 * SLOPE_SPAN, 4 * SLOPE_SPAN))
        allowed, cv = self._options.criteria[worst].allowed, twin.source.cv
        tail = math.sqrt(allowed * (1.0 - allowed)) / NORMAL.pdf(NORMAL.inv_cdf(allowed)) / slope
        variance = (cv**2 + min(1.0, cv**2) * tail**2) / seen * MODEL_ERROR**2
        variance += MODEL_FLOOR**2 + tail**2 * LIKENESS / (2.0 * requests) + (float(shift_error[worst]) / slope) ** 2
        return Estimate(log_rate, math.sqrt(variance), worst, twin, shift)


def _nearness(logs: FloatArray, centre: float) -> FloatArray:
    """Weights of probes: 1 at the centre, falling with the distance, never below a small share."""
    return np.maximum(np.exp(-0.5 * ((logs - centre) / NEAR) ** 2), FAR_WEIGHT)


def _normal_units(shares: FloatArray, samples: int) -> FloatArray:
    return _inverse(np.clip(shares, 0.5 / samples, 1.0 - 0.5 / samples))


def _inverse(shares: FloatArray) -> FloatArray:
    units: FloatArray = np.vectorize(NORMAL.inv_cdf, otypes=[np.float64])(shares)
    return units


def _regula_falsi(over: Callable[[float], float], one: tuple[float, float], other: tuple[float, float]) -> float:
    """The zero of a rising function between two points of opposite sign, by the Illinois method."""
    (low, low_value), (high, high_value) = sorted((one, other))
    for _ in range(ROOT_STEPS):
        if high - low < ROOT_WIDTH:
            break
        middle = high - high_value * (high - low) / (high_value - low_value)
        middle = min(max(middle, low + 0.05 * (high - low)), high - 0.05 * (high - low))
        value = over(middle)
        if abs(value) < ROOT_EXCESS:
            return middle
        if value > 0.0:
            high, high_value, low_value = middle, value, low_value / 2.0
        else:
            low, low_value, high_value = middle, value, high_value / 2.0
    return (low + high) / 2.0


def _sizes(traces: list[ProbeTrace], probes: list[Occupancy]) -> FloatArray | None:
    rows: list[IntArray] = [probe.rows[probe.ended] for probe in probes]
    known = [trace.sizes[row] for trace, row in zip(traces, rows, strict=True) if trace.sizes is not None]
    return np.concatenate(known) if len(known) == len(traces) else None
