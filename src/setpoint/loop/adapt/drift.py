"""Whether a stream of samples has changed: recent samples against those before them, with a bound on false alarms.

Two tests, both bounds and not approximations, so that what is stated is an upper limit for independent samples:

- any change of the distribution: the two-sample Kolmogorov-Smirnov distance D of n recent and m earlier samples, with
  ``P(D >= d) <= e * exp(-2 d^2 nm / (n + m))`` (Dvoretzky-Kiefer-Wolfowitz form for two samples; Wei and Dudley, Statistics and
  Probability Letters 82, 2012). Ties only make it more cautious.
- a change of the rate of arrivals: the ratio r of mean gaps, with ``P(ratio >= r) <= r^n ((n + m) / (rn + m))^(n + m)`` for
  exponential gaps (Chernoff's bound on a ratio of gamma variables) and for its inverse; for gaps whose coefficient of variation
  c is above 1, n and m count as n/c^2 and m/c^2.

Sequential correction: every look at every stream is a test, and each may be false with probability
``a * look_s / 3600 / tests``: by the union bound at most ``a`` false alarms an hour are to be expected, however looks overlap.
When it is wrong: samples that follow each other (turns of one conversation, a burst) are not independent; then there are more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import e, exp, inf, log

import numpy as np

from setpoint.policy.views import FloatColumn

REFERENCE_SAMPLES = 256
LEAST_SHIFT_SAMPLES = 4


def distance(first: FloatColumn, second: FloatColumn) -> float:
    """Largest difference of the two empirical distribution functions; both have samples."""
    first, second = np.sort(first), np.sort(second)
    every = np.concatenate((first, second))
    below = np.searchsorted(first, every, side="right") / len(first)
    return float(np.abs(below - np.searchsorted(second, every, side="right") / len(second)).max())


def distribution_bound(first: FloatColumn, second: FloatColumn) -> float:
    """An upper bound on the probability of their distance if both come from one distribution."""
    n, m = len(first), len(second)
    return min(1.0, e * exp(-2.0 * distance(first, second) ** 2 * n * m / (n + m)))


def rate_bound(first: FloatColumn, second: FloatColumn) -> float:
    """As ``distribution_bound`` for the ratio of the means of gaps, by the variation of ``second`` (at least 1)."""
    mean, other = float(first.mean()), float(second.mean())
    if min(mean, other) <= 0:
        return 1.0 if mean == other else 0.0
    cv = max(1.0, float(second.std()) / other)
    n, m, ratio = len(first) / cv**2, len(second) / cv**2, mean / other
    if ratio < 1:
        n, m, ratio = m, n, 1 / ratio
    return min(1.0, 2.0 * exp(n * log(ratio) + (n + m) * log((n + m) / (ratio * n + m))))


class Stream:
    """Samples of one quantity: the newest ``recent`` against up to ``REFERENCE_SAMPLES`` that came before them."""

    def __init__(self, recent: int, least_reference: int) -> None:
        self._size, self._least = recent, least_reference
        self._recent: deque[tuple[float, float]] = deque()
        self._reference: list[float] = []

    def add(self, at_s: float, value: float) -> None:
        """A sample; ``at_s`` does not fall."""
        self._recent.append((at_s, value))
        if len(self._recent) > self._size:
            _, old = self._recent.popleft()
            if len(self._reference) < REFERENCE_SAMPLES:
                self._reference.append(old)

    def restart(self, since_s: float) -> None:
        """Forget what came before ``since_s``: the reference is collected anew."""
        self._reference = []
        self._recent = deque(each for each in self._recent if each[0] >= since_s)

    @property
    def both(self) -> tuple[FloatColumn, FloatColumn] | None:
        """Recent samples and the reference, once there are enough."""
        if len(self._reference) < self._least or len(self._recent) < self._size:
            return None
        return np.array([value for _, value in self._recent]), np.array(self._reference)

    def changed_at_s(self) -> float:
        """When the recent samples began to differ: where what comes after is farthest from the reference, by its weight."""
        times = [at_s for at_s, _ in self._recent]
        values = np.array([value for _, value in self._recent])
        reference = np.array(self._reference)
        best, found = -inf, 0
        for first in range(len(values) - LEAST_SHIFT_SAMPLES + 1):
            after = values[first:]
            before = np.concatenate((reference, values[:first]))
            weight = len(after) * len(before) / (len(after) + len(before))
            apart = distance(after, before) * weight**0.5
            if apart > best:
                best, found = apart, first
        return times[found]


@dataclass(frozen=True, slots=True)
class Drift:
    """``quantity`` changed at about ``since_s``, told at ``at_s``: means of then and now, how likely that is by chance."""

    quantity: str
    since_s: float
    at_s: float
    before: float
    after: float
    chance: float
