"""Measuring until a percentile is known well enough, without being fooled by looking again and again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy.typing as npt

from setpoint.statistics.intervals import percentile_interval
from setpoint.statistics.samples import Interval, check_percentile, percentile

MOST_LOOKS = 50


def settled(
    samples: npt.ArrayLike,
    p: float,
    relative_width: float,
    confidence: float = 0.95,
    censored: npt.ArrayLike | None = None,
) -> bool:
    """Whether the ``p``-th percentile is known to within ``relative_width`` of itself (0.1: to 10 %).

    That is, whether both ends of its interval at ``confidence`` lie within ``relative_width`` times the percentile of it.
    One look at a fixed number of samples; to look repeatedly use ``StoppingRule``, which pays for it. Samples in arrival
    order. Raises ``ValueError`` for a width that is not positive.
    """
    if not relative_width > 0.0:
        raise ValueError(f"relative_width must be above 0, found {relative_width:g}")
    value = percentile(samples, p, censored)
    interval = percentile_interval(samples, p, confidence, censored=censored)
    if value is None or interval is None or not math.isfinite(value) or value <= 0.0:
        return False
    reach = relative_width * value
    return value - interval[0] <= reach and interval[1] - value <= reach


@dataclass(frozen=True, slots=True)
class StoppingRule:
    """ "Until P99 is known to 10 %", valid though the samples are looked at several times.

    The looks are fixed beforehand: the first after ``least_s`` seconds, each later one after the same factor more, the last
    at ``most_s``, when the run ends whatever is known. Each look is at the confidence 1 - (1 - confidence) / looks
    (Bonferroni), so with probability ``confidence`` no look at all has an interval without the truth, and the interval of
    the look that stopped the run (``interval``) may be believed as if it had been the only one.
    """

    p: float
    relative_width: float
    least_s: float
    most_s: float
    looks: int = 6
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check_percentile(self.p)
        if not self.relative_width > 0.0:
            raise ValueError(f"relative_width must be above 0, found {self.relative_width:g}")
        if not 0.0 < self.least_s <= self.most_s or not math.isfinite(self.most_s):
            raise ValueError(f"looks need 0 < least_s <= most_s, found {self.least_s:g} s and {self.most_s:g} s")
        if not 1 <= self.looks <= MOST_LOOKS:
            raise ValueError(f"looks must be 1 to {MOST_LOOKS}, found {self.looks}")

    @property
    def looks_s(self) -> tuple[float, ...]:
        """When to look, in seconds from the start of the phase, ascending; the last is ``most_s``."""
        if self.looks == 1 or self.least_s == self.most_s:
            return (self.most_s,)
        factor = (self.most_s / self.least_s) ** (1.0 / (self.looks - 1))
        return (*(self.least_s * factor**look for look in range(self.looks - 1)), self.most_s)

    @property
    def look_confidence(self) -> float:
        """The confidence of the interval of each look."""
        return 1.0 - (1.0 - self.confidence) / len(self.looks_s)

    def settled(self, samples: npt.ArrayLike, censored: npt.ArrayLike | None = None) -> bool:
        """Whether to stop at a look, given the samples of the phase so far in arrival order."""
        return settled(samples, self.p, self.relative_width, self.look_confidence, censored)

    def interval(self, samples: npt.ArrayLike, censored: npt.ArrayLike | None = None) -> Interval | None:
        """The interval of the percentile that the looking has been paid for in."""
        return percentile_interval(samples, self.p, self.look_confidence, censored=censored)
