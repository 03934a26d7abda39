"""Service level objectives: the limits an application lives by."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise

from pydantic import Field

from setpoint.requirement.part import Fault, Part

MAX_LIMIT_S = 7 * 86_400.0


class LatencyMetric(StrEnum):
    """Quantities whose percentiles an SLO may limit."""

    TTFT = "ttft"
    ITL = "itl"
    TPOT = "tpot"
    E2E = "e2e"
    QUEUE_WAIT = "queue_wait"


TOKEN_METRICS = (LatencyMetric.TTFT, LatencyMetric.ITL, LatencyMetric.TPOT)
"""Metrics that exist only where the tokens of an answer are seen one by one."""

GAP_METRICS = (LatencyMetric.ITL, LatencyMetric.TPOT)
"""Metrics that need at least two output tokens."""


class LatencySlo(Part):
    """``percentile`` of ``metric`` at most ``limit_s``."""

    metric: LatencyMetric
    percentile: float = Field(gt=0, lt=100)
    limit_s: float = Field(gt=0, le=MAX_LIMIT_S)

    @property
    def statistic(self) -> str:
        """As written in YAML: ``p95``, ``p99.9``."""
        return f"p{self.percentile:g}"


class SpreadSlo(Part):
    """P99 / P50 of ``metric`` at most ``limit``."""

    metric: LatencyMetric
    limit: float = Field(ge=1)


class Slos(Part):
    """Limits the application lives by. ``goodput_fraction_min`` is of offered requests."""

    latency: tuple[LatencySlo, ...] = ()
    spread: tuple[SpreadSlo, ...] = ()
    goodput_fraction_min: float | None = Field(default=None, gt=0, le=1)
    shed_fraction_max: float | None = Field(default=None, ge=0, lt=1)

    def limit_s(self, metric: LatencyMetric) -> float | None:
        """The tightest limit declared for one request's ``metric`` at any percentile, or ``None``."""
        limits = [slo.limit_s for slo in self.latency if slo.metric == metric]
        return min(limits) if limits else None

    def metric_paths(self) -> Iterator[tuple[LatencyMetric, tuple[str, ...]]]:
        """Every metric that is limited, with the YAML path of its limit."""
        for metric in LatencyMetric:
            if any(slo.metric is metric for slo in self.latency):
                yield metric, (metric.value,)
            if any(slo.metric is metric for slo in self.spread):
                yield metric, ("spread", metric.value)

    def declared(self) -> bool:
        """Whether there is any limit at all."""
        fractions = (self.goodput_fraction_min, self.shed_fraction_max)
        return bool(self.latency or self.spread) or any(fraction is not None for fraction in fractions)

    def faults(self) -> Iterator[Fault]:
        """A percentile is limited once, and a higher percentile never tighter than a lower one."""
        for metric in LatencyMetric:
            slos = sorted((slo for slo in self.latency if slo.metric is metric), key=lambda slo: slo.percentile)
            for lower, higher in pairwise(slos):
                path = (metric.value, higher.statistic)
                if lower.percentile == higher.percentile:
                    yield Fault(path, f"one limit for {higher.statistic}")
                elif higher.limit_s < lower.limit_s:
                    yield Fault(path, f"at least the limit of {lower.statistic} ({lower.limit_s:g} s)")
            if sum(slo.metric is metric for slo in self.spread) > 1:
                yield Fault(("spread", metric.value), "one limit for each metric")
