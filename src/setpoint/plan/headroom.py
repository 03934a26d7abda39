"""How sure a plan is: the probability that its limits hold, and how far the knee is.

Three things may differ from what was simulated. How long steps take: one factor on all of them, log-normal with the relative
error of the calibration (an error that steps share is the dangerous one, errors of single steps average out). The load: one
factor, log-normal with the relative uncertainty that the user states. TTFT, which is predicted less well than steps: what its
error has beyond theirs is one more log-normal factor, on limits on TTFT alone. The probability that every limit holds is the
share of that space on which the load curve is met, summed over equally likely cells. Nothing is drawn by chance.

When it is wrong: an error that grows with the batch or the context is taken as one factor at the point of operation; that of
TTFT was learned from means of benchmarks and not from percentiles, and goodput and E2E are taken without it; the simulated
percentile has its own sampling error, which the checks show and this leaves out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from setpoint.plan.curve import Floats, LoadCurve

CELLS = 61
SURE_ERROR = 0.05
"""Relative error that a measurement of the very hardware leaves (the residual of a calibration, docs/hardware.md)."""

SURE_LOAD = 0.02
DEFAULT_CONFIDENCE = 0.9


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """Standard deviations of ln(true / predicted) of a step's time and of TTFT, and of ln(true / stated) of the load.

    guess: whether that of steps is itself a guess. It then makes nothing sure: more replicas are no answer to not knowing how
    much slower steps may be.
    """

    step_error: float
    load_error: float
    ttft_error: float = 0.0
    guess: bool = False

    @property
    def ttft_beyond_steps(self) -> float:
        """That of what TTFT is off by beyond what the error of the steps makes of it, as if the two were independent."""
        return math.sqrt(max(self.ttft_error**2 - self.step_error**2, 0.0))


@dataclass(frozen=True, slots=True)
class Headroom:
    """What a candidate has to spare at its load.

    met_probability: that every limit holds. knee_rps: highest load of a replica that holds, steps as predicted;
    knee_distance: how much more load that is than the offered one (0.25: a quarter more; negative: over the knee).
    within_error: the limits hold as predicted but would not if steps were slower by one standard error, TTFT longer by one of
    its own or the load that much higher, or the error of steps is a guess. if_measured, if_load_known: the probability if
    steps and TTFT, or the load, were known well and came out as predicted.
    """

    met_probability: float
    knee_rps: float
    knee_distance: float
    within_error: bool
    if_measured: float
    if_load_known: float

    def sure(self, confidence: float) -> bool:
        """Whether the plan may be recommended without a warning."""
        return self.met_probability >= confidence and not self.within_error


def met_probability(curve: LoadCurve, rate_rps: float, uncertainty: Uncertainty) -> float:
    """The probability that every limit holds for a replica that gets ``rate_rps``."""
    stretch = _cells(uncertainty.step_error)[:, None]
    load = _cells(uncertainty.load_error)[None, :]
    ttft, others = curve.excess_apart(rate_rps * load, stretch)
    delays = _cells(uncertainty.ttft_beyond_steps)
    in_time = np.searchsorted(delays, 1.0 / ttft, side="right") / len(delays)
    return float(np.where(others <= 1.0, in_time, 0.0).mean())


def headroom(curve: LoadCurve, rate_rps: float, uncertainty: Uncertainty) -> Headroom:
    """Everything about what a candidate has to spare when a replica gets ``rate_rps``."""
    knee_rps = curve.knee_rps()
    step, load = uncertainty.step_error, uncertainty.load_error
    return Headroom(
        met_probability=met_probability(curve, rate_rps, uncertainty),
        knee_rps=knee_rps,
        knee_distance=knee_rps / rate_rps - 1.0,
        within_error=_within_error(curve, rate_rps, uncertainty),
        if_measured=met_probability(curve, rate_rps, Uncertainty(min(step, SURE_ERROR), load)),
        if_load_known=met_probability(curve, rate_rps, replace(uncertainty, load_error=min(load, SURE_LOAD))),
    )


def is_sure(curve: LoadCurve, rate_rps: float, uncertainty: Uncertainty, confidence: float) -> bool:
    """As ``Headroom.sure``, for those who ask of many loads and want nothing else."""
    within = _within_error(curve, rate_rps, uncertainty)
    return not within and met_probability(curve, rate_rps, uncertainty) >= confidence


def _within_error(curve: LoadCurve, rate_rps: float, uncertainty: Uncertainty) -> bool:
    """See ``Headroom``."""
    if not curve.met(rate_rps):
        return False
    slower = curve.met(rate_rps, float(np.exp(uncertainty.step_error)))
    more = curve.met(rate_rps * float(np.exp(uncertainty.load_error)))
    ttft, _ = curve.excess_apart(np.array([rate_rps]), np.ones(1))
    later = bool(ttft[0] * np.exp(uncertainty.ttft_error) <= 1.0)
    return uncertainty.guess or not (slower and more and later)


def _cells(sigma: float) -> Floats:
    """Factors at the middles of ``CELLS`` equally likely cells of a log-normal with median 1."""
    if sigma <= 0:
        return np.ones(1)
    normal = NormalDist()
    return np.exp(sigma * np.array([normal.inv_cdf((index + 0.5) / CELLS) for index in range(CELLS)]))
