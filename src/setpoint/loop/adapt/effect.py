"""Whether a change did what was predicted: the share of good requests before and after it, by requests that came then.

Two shares are compared by the difference of Agresti and Caffo (The American Statistician 54, 2000): one success and one failure
are added to each. A change *helped* if the difference is above 0 at ``Z``, *harmed* if it is below 0 at ``Z``: 5 % one-sided
over the ``LOOKS`` looks that a trial gets (S. J. Pocock, Biometrika 64, 1977). One that did neither when the time is up did not
help if less than half of the predicted gain came nor the predicted share. Without requests before it nothing is said.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from math import sqrt

KEPT_OUTCOMES = 65_536
LOOKS = 5
Z = 2.122
ENOUGH_OF_GAIN = 0.5


class Verdict(StrEnum):
    """What became of a change. ``UNMEASURED``: too little traffic, it stays. ``OVERTAKEN``: the traffic changed again."""

    HELPED = "helped"
    DID_NOT_HELP = "did not help"
    HARMED = "harmed"
    UNMEASURED = "unmeasured"
    OVERTAKEN = "overtaken by a drift"

    @property
    def rolls_back(self) -> bool:
        """Whether the configuration before comes back."""
        return self in (Verdict.DID_NOT_HELP, Verdict.HARMED)


@dataclass(frozen=True, slots=True)
class Share:
    """Of ``requests``, ``good`` met every limit."""

    good: int
    requests: int

    @property
    def value(self) -> float:
        """The share; 1 where there is none."""
        return self.good / self.requests if self.requests else 1.0

    def above(self, other: Share) -> tuple[float, float]:
        """By how much it is above ``other``, and the standard error of that."""
        first, second = (self.good + 1) / (self.requests + 2), (other.good + 1) / (other.requests + 2)
        variance = first * (1 - first) / (self.requests + 2) + second * (1 - second) / (other.requests + 2)
        return first - second, sqrt(variance)


class Outcomes:
    """Moments at which requests came, and whether they turned out good; the newest ``KEPT_OUTCOMES`` that have ended.

    under_way: the same of those that have not ended, as far as it can be said: without the good ones among them the newest
    would look worse than they are.
    """

    def __init__(self) -> None:
        self._ended: deque[tuple[float, bool]] = deque(maxlen=KEPT_OUTCOMES)
        self.under_way: tuple[tuple[float, bool], ...] = ()

    def add(self, arrived_s: float, good: bool) -> None:
        """A request ended."""
        self._ended.append((arrived_s, good))

    def between(self, from_s: float, until_s: float) -> Share:
        """Of the requests that came in that time and have ended, or are as good as."""
        good = [each for arrived_s, each in chain(self._ended, self.under_way) if from_s <= arrived_s < until_s]
        return Share(sum(good), len(good))

    def forget(self, before_s: float) -> None:
        """What came before that is of no interest any more."""
        while self._ended and self._ended[0][0] < before_s:
            self._ended.popleft()


@dataclass(frozen=True, slots=True)
class Prediction:
    """Shares of good requests under the present configuration and the new one, and how sure the gain is."""

    present: float
    good: float
    gain: float
    uncertainty: float


def verdict(before: Share, after: Share, predicted: Prediction, *, time_is_up: bool, least: int) -> Verdict | None:
    """``None`` if it is too early to say."""
    if after.requests < least or not before.requests:
        return Verdict.UNMEASURED if time_is_up else None
    difference, error = after.above(before)
    if difference < -Z * error:
        return Verdict.HARMED
    if difference > Z * error:
        return Verdict.HELPED
    if not time_is_up:
        return None
    came = after.value - before.value >= ENOUGH_OF_GAIN * predicted.gain
    return Verdict.HELPED if came or after.value >= predicted.good - predicted.uncertainty else Verdict.DID_NOT_HELP
