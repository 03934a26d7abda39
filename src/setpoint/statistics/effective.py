"""How many independent values a dependent sample counts as, once what is not known of its dependence is paid for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from setpoint.statistics.dependence import Dependence
from setpoint.statistics.student import student_quantile


@dataclass(frozen=True, slots=True)
class Rules:
    """What a sample must hold before a conclusion is drawn from it; found by simulation (benchmarks/statistics).

    least_beyond: effective values beyond the percentile, of an independent sample. least_beyond_dependent: the same of a
    strongly dependent one. least_degrees: how many times the correlation's reach must fit into a strongly dependent sample.
    wider: how much wider the ends of a strongly dependent sample are made where it barely suffices, as a share.
    """

    least_beyond: float
    least_beyond_dependent: float
    least_degrees: float
    wider: float = 0.0


INTERVAL_RULES = Rules(least_beyond=5.5, least_beyond_dependent=20.0, least_degrees=15.0, wider=0.3)
LIMIT_RULES = Rules(least_beyond=0.0, least_beyond_dependent=0.0, least_degrees=12.0)


@dataclass(frozen=True, slots=True)
class EffectiveSizes:
    """Effective sizes for the low and for the high end of an interval; ``None`` where there can be no such end."""

    low: float | None
    high: float | None


def effective_sizes(
    n: int, beyond: float, found: Dependence, confidence: float, rules: Rules = INTERVAL_RULES
) -> EffectiveSizes:
    """The effective sizes of a sample of ``n`` values for a percentile with the share ``beyond`` above it.

    They are n over the inefficiency, made smaller for what is not known about the inefficiency itself. (1) Student's
    quantile stands for the normal one; its degrees are those of the estimate, or the effective count beyond the percentile
    if that is less, over the share of the variance that is due to dependence. (2) A sample that by luck has little beyond
    the percentile seems to cluster little, too; so the high end is widened by share / sqrt(effective count). (3) The same luck
    decides whether an interval is given at all, where that is a near thing; so there both ends are ``wider``.

    There is no high end unless the effective count beyond is at least ``least_beyond``, rising with the square of the share
    to ``least_beyond_dependent``; and no end at all unless the correlation's reach fits ``least_degrees`` x sqrt(share)
    times into the sample.
    """
    share = found.share
    least_degrees = rules.least_degrees * math.sqrt(share)
    if found.degrees < least_degrees:
        return EffectiveSizes(None, None)
    near = least_degrees / found.degrees if share > 0.0 else 0.0
    counted = n * beyond / found.inefficiency
    degrees = min(found.degrees, counted) / share if share > 0.0 else math.inf
    size = n / found.inefficiency / (student_stretch(confidence, max(degrees, 1.0)) * (1.0 + rules.wider * share * near)) ** 2
    needed = rules.least_beyond + (rules.least_beyond_dependent - rules.least_beyond) * share**2
    if counted < needed * (1.0 - 1e-9):
        return EffectiveSizes(size, None)
    return EffectiveSizes(size, size / (1.0 + share / math.sqrt(counted)) ** 2)


def student_stretch(confidence: float, degrees: float) -> float:
    """Student's quantile over the normal one, two-sided."""
    level = 0.5 + confidence / 2.0
    return student_quantile(level, degrees) / NormalDist().inv_cdf(level)
