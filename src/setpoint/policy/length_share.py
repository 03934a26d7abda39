"""How much room is kept for long requests, learned from what share of them gets in: overload shall not filter by length.

A request is judged with the work of a long one of late beside its own, up to a share r of its limit
(``policy/admission.py``). While requests are being refused, every decision on a long one (work over the ``LONG_QUANTILE`` of
the last ``SAMPLES``) moves r by ``RATE x (TARGET - admitted / a)``, a the mean admission of all: an integral controller
(Robbins and Monro, 1951) that comes to rest where long requests are admitted ``TARGET`` times as often as all are: not as
often, for room that is kept is capacity that is not sold. Without refusals r stays what it is, and so it does where a long
request would be late even with nobody ahead of it.

Defaults: r from 0.3, never under 0.05 nor over 0.7. When it is wrong: where the mix of lengths changes, for as many
refusals as it takes to learn anew; ``MOST`` bounds what the room that is kept costs the others.
"""

from __future__ import annotations

from collections import deque

import numpy as np

LONG_QUANTILE = 0.75
SAMPLES = 128
LEAST_SAMPLES = 32
SORT_EVERY = 16
TARGET = 0.75
RATE = 0.05
MEAN_RATE = 0.05
CONTENDED_BELOW = 0.98
LEAST_MEAN = 0.1
START = 0.3
LEAST = 0.05
MOST = 0.7


class LengthShare:
    """``share``: of its limit, the most that a request keeps free for a long one."""

    def __init__(self) -> None:
        self.share = START
        self._works_s: deque[float] = deque(maxlen=SAMPLES)
        self._long_s = np.inf
        self._seen = 0
        self._mean = 1.0

    def decided(self, work_s: float, *, admitted: bool) -> None:
        """A request with so much work was admitted or refused, by its limits and for the first time."""
        self._mean += MEAN_RATE * (float(admitted) - self._mean)
        if work_s > self._long_s and self._mean < CONTENDED_BELOW:
            self.share = min(MOST, max(LEAST, self.share + RATE * (TARGET - float(admitted) / max(LEAST_MEAN, self._mean))))
        self._works_s.append(work_s)
        self._seen += 1
        if self._seen >= LEAST_SAMPLES and self._seen % SORT_EVERY == 0:
            self._long_s = float(np.quantile(np.array(self._works_s), LONG_QUANTILE))
