"""From observations to the distributions of a requirement: token counts, and arrivals.

A log-normal is taken where it fits, because it is what a person can read and change; otherwise the observations
themselves, in a few groups that keep quantiles and mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from setpoint.requirement import ChoiceTokens, ConstantTokens, LognormalTokens, TokenDistribution
from setpoint.workload.lengths import NORMAL_Q95, mean_tokens, normal_cdf

Floats = NDArray[np.float64]

MAX_DISTANCE = 0.06
"""Largest difference of the two distribution functions (Kolmogorov and Smirnov's distance) at which a fit is taken."""
MAX_MEAN_ERROR = 0.1
FEW_VALUES = 12
GROUP_ENDS = (*np.arange(0.05, 0.951, 0.05).tolist(), 0.98, 0.99, 1.0)

BURST_WINDOW_S = 10.0
MOST_WINDOWS = 1_000_000
LEAST_BURST = 1.5
LEAST_SURPRISE = 5.0
"""A peak counts as a burst when it lies so many standard deviations of a Poisson count above the mean."""


@dataclass(frozen=True, slots=True)
class TokenFit:
    """A distribution, how far it is from what was seen (0 to 1), and the mean that was seen."""

    distribution: TokenDistribution
    distance: float
    mean: float


def fit_tokens(tokens: NDArray[np.int64], weights: Floats | None = None) -> TokenFit:
    """The distribution of ``tokens``, shape ``[n]``, n at least 1, each counted ``weights`` times (once where ``None``)."""
    order = np.argsort(tokens, kind="stable")
    values = tokens[order].astype(np.float64)
    shares = np.ones(values.size) if weights is None else weights[order]
    shares = shares / shares.sum()
    mean = float((values * shares).sum())
    distinct, share_of = _together(values, shares)
    if distinct.size == 1:
        return TokenFit(ConstantTokens(value=int(distinct[0])), 0.0, mean)
    fitted = _lognormal(distinct, share_of)
    distance = _distance(fitted, distinct, share_of)
    if distance <= MAX_DISTANCE and abs(mean_tokens(fitted) - mean) <= MAX_MEAN_ERROR * mean:
        return TokenFit(fitted, distance, mean)
    return TokenFit(_choice(distinct, share_of), 0.0, mean)


def _lognormal(values: Floats, shares: Floats) -> LognormalTokens:
    """By median and 95th percentile, which is how a requirement states it."""
    cumulative = np.cumsum(shares)
    places = np.minimum(np.searchsorted(cumulative, np.array([0.5, 0.95]) - 1e-12), values.size - 1)
    median, p95 = values[places].tolist()
    return LognormalTokens(median=median, p95=p95, min=int(values[0]), max=int(values[-1]))


def _distance(fitted: LognormalTokens, values: Floats, shares: Floats) -> float:
    """The largest difference between the distribution function of the fit, rounded as draws are, and that of the values."""
    sigma = math.log(fitted.p95 / fitted.median) / NORMAL_Q95
    if sigma < 1e-9:
        return 1.0
    cumulative = np.cumsum(shares)
    scores = (np.log(values + 0.5) - math.log(fitted.median)) / sigma
    theory = np.array([normal_cdf(score) for score in scores.tolist()])
    theory[-1] = 1.0  # Draws above the maximum become the maximum.
    return float(np.abs(theory - cumulative).max())


def _choice(values: Floats, shares: Floats) -> ChoiceTokens:
    """The values with their shares, or the means of groups of them where they are many."""
    if values.size > FEW_VALUES:
        group = np.searchsorted(GROUP_ENDS, np.cumsum(shares) - 1e-9)
        group = np.minimum(group, len(GROUP_ENDS) - 1)
        sums: Floats = np.bincount(group, weights=shares, minlength=len(GROUP_ENDS)).astype(np.float64)
        means = np.bincount(group, weights=shares * values, minlength=len(GROUP_ENDS))[sums > 0] / sums[sums > 0]
        values, shares = _together(np.maximum(np.rint(means), 1.0), sums[sums > 0])
    return ChoiceTokens(
        values=tuple(values.astype(int).tolist()), weights=tuple(float(f"{share:.4g}") for share in shares.tolist())
    )


def _together(values: Floats, shares: Floats) -> tuple[Floats, Floats]:
    """The distinct values, ascending, and the share of each."""
    distinct, places = np.unique(values, return_inverse=True)
    summed: Floats = np.bincount(places, weights=shares).astype(np.float64)
    return distinct, summed


@dataclass(frozen=True, slots=True)
class ArrivalFit:
    """Arrivals as seen. cv: of the gaps. dispersion: variance over mean of the counts in windows of ``BURST_WINDOW_S``.

    peak_rps: rate in the busiest such window. surprise: by how many standard deviations of a Poisson count that window is
    above the mean. simultaneous: share of gaps of 0, a sign that times were rounded.
    """

    rate_rps: float
    cv: float
    dispersion: float | None
    peak_rps: float
    surprise: float
    simultaneous: float

    @property
    def bursty(self) -> bool:
        """Whether the peak is more than chance."""
        return self.peak_rps >= LEAST_BURST * self.rate_rps and self.surprise >= LEAST_SURPRISE


def fit_arrivals(times_s: Floats, duration_s: float) -> ArrivalFit:
    """What ``times_s`` (ascending, shape ``[n]``, n at least 3) over ``duration_s`` above 0 look like."""
    rate_rps = times_s.size / duration_s
    gaps = np.diff(times_s)
    window_s = min(BURST_WINDOW_S, duration_s)
    ahead = np.searchsorted(times_s, times_s + window_s, side="left") - np.arange(times_s.size)
    most = float(ahead.max())
    expected = rate_rps * window_s
    windows = min(int(duration_s / window_s), MOST_WINDOWS)
    counts = np.histogram(times_s, bins=max(windows, 1), range=(0.0, max(windows, 1) * window_s))[0]
    return ArrivalFit(
        rate_rps=rate_rps,
        cv=float(gaps.std() / gaps.mean()) if gaps.mean() > 0 else 0.0,
        dispersion=float(counts.var() / counts.mean()) if windows >= 10 and counts.mean() > 0 else None,
        peak_rps=most / window_s,
        surprise=(most - expected) / math.sqrt(expected),
        simultaneous=float((gaps == 0).mean()),
    )
