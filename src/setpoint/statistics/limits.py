"""Whether a percentile is within a limit, asked at the limit: how many values lie beyond it?"""

from __future__ import annotations

import math
from enum import Enum

import numpy as np
import numpy.typing as npt

from setpoint.statistics.binomial import probability_up_to
from setpoint.statistics.dependence import Dependence, tail_dependence
from setpoint.statistics.effective import LIMIT_RULES, effective_sizes, student_stretch
from setpoint.statistics.samples import above_all, as_sample, check_percentile

MOST_SHARE = 0.97
LEAST_SIZE = 1.5


class Side(Enum):
    """On which side of a limit a percentile is shown to lie."""

    WITHIN = "within"
    BEYOND = "beyond"
    UNKNOWN = "unknown"


def side_of_limit(
    samples: npt.ArrayLike,
    p: float,
    limit: float,
    confidence: float = 0.95,
    censored: npt.ArrayLike | None = None,
    *,
    transient: bool = False,
) -> Side:
    """Whether the ``p``-th percentile of a dependent sample, in arrival order, is at most ``limit``.

    That is whether at most the share 1 - p lies beyond it. Were the percentile exactly at the limit, the number beyond
    would be binomial(n, 1 - p), n being an effective size: so few beyond that this has a probability of at most
    (1 - confidence) / 2 show ``WITHIN``, so many ``BEYOND``; each is wrong with at most that probability. Both have to hold
    for independent values first: 368 of them, none beyond, show a P99 within its limit, 72 a P95.

    The dependence is the worse of that at the limit and that at the sample's own percentile, lest a sample that by luck has
    few values beyond the limit seem to have them scattered. Where all values are far below the limit u < limit, u being the
    largest of them, dependence matters less: the share beyond u is what is uncertain, and beyond the limit lies at most
    u / limit of it if the tail falls off at least as fast as 1 / x. A censored value below the limit counts as beyond it
    for the first question and not for the second. ``transient``: see ``dependence``. Values must not be negative.
    """
    check_percentile(p)
    values, mask = as_sample(samples, censored)
    n = len(values)
    if n == 0:
        return Side.UNKNOWN
    share, tail = 1.0 - p / 100.0, (1.0 - confidence) / 2.0
    surely = int(np.count_nonzero(values > limit))
    perhaps = int(np.count_nonzero((values > limit) | mask))
    few = probability_up_to(perhaps, n, share) <= tail
    many = surely > 0 and 1.0 - probability_up_to(surely - 1.0, n, share) <= tail
    if not few and not many:
        return Side.UNKNOWN
    ranked = above_all(values, mask)
    found = tail_dependence(ranked, float(max(perhaps, 1)), transient=transient)
    found = found.worse(tail_dependence(ranked, n * share, transient=transient))
    if few:
        below = values[(values <= limit) & ~mask]
        room = float(below.max()) / limit if len(below) and limit > 0.0 else 1.0
        return Side.WITHIN if _few(n, perhaps, min(share / max(room, share), MOST_SHARE), found, confidence) else Side.UNKNOWN
    if surely == n and limit > 0.0:
        # The same from the other side: the least of the values is far beyond the limit.
        room = (float(values.min()) / limit) ** 2
        lowest = tail_dependence(-ranked, 1.0, transient=transient)
        if _few(n, 0, min((1.0 - share) * room, MOST_SHARE), lowest, confidence):
            return Side.BEYOND
    return Side.BEYOND if _many(n, surely, share, found, confidence) else Side.UNKNOWN


def _few(n: int, beyond: int, share: float, found: Dependence, confidence: float) -> bool:
    """Whether ``beyond`` of ``n`` dependent values are fewer than a share of ``share`` gives by chance."""
    size = effective_sizes(n, share, found, confidence, LIMIT_RULES).high
    return size is not None and probability_up_to(beyond * size / n, size, share) <= (1.0 - confidence) / 2.0


def _many(n: int, beyond: int, share: float, found: Dependence, confidence: float) -> bool:
    """Whether ``beyond`` of ``n`` dependent values are more than a share of ``share`` gives by chance.

    Student's degrees are those of the estimate of the dependence. However dependent, a sample counts as ``LEAST_SIZE`` values:
    one of which all are beyond a P95 shows it beyond.
    """
    degrees = max(found.degrees, 1.0) / found.share if found.share > 0.0 else math.inf
    size = max(LEAST_SIZE, n / found.inefficiency / student_stretch(confidence, max(degrees, 2.0)) ** 2)
    return 1.0 - probability_up_to(beyond * size / n - 1.0, size, share) <= (1.0 - confidence) / 2.0
