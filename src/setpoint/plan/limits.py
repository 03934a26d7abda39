"""What must hold of a candidate: the requirement's limits, each on its phase, and what a plan must not buy them with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from setpoint.record import Phase
from setpoint.report.format import round_percent, round_seconds
from setpoint.requirement import LatencyMetric, Requirement, Slos

IMPLIED_SHED = 0.01
"""Most of the offered requests that a plan may refuse where the requirement says nothing of it."""

IMPLIED_BACKLOG = 0.03
"""Most of the offered requests that may wait, at every moment of the second half of the sustained phase, to be begun: where
more do, the replica does not keep up with its load (``keeping_up``)."""

BACKLOG = "backlog_fraction"

_METRICS = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2e": "E2E", "queue_wait": "queue wait"}

FRACTIONS = ("goodput_fraction", "shed_fraction", BACKLOG)


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit. ``metric`` and ``statistic`` as in ``record.SloCheck``; ``percent``: of a latency, its percentile.

    implied: not in the requirement. Shed requests are in no latency percentile, so without a limit on them a plan could meet
    any of those by refusing the rest; a queue that grows is in no gap between tokens, so without a limit on it a plan could
    meet limits on gaps, or none at all, with a replica that does not keep up.
    """

    metric: str
    statistic: str
    phase: Phase
    limit: float
    percent: float | None = None
    implied: bool = False

    @property
    def is_latency(self) -> bool:
        """Whether it is a percentile in seconds."""
        return self.percent is not None

    @property
    def key(self) -> str:
        """Such as ``sustained ttft p99``."""
        return f"{self.phase.value} {self.metric} {self.statistic}"


def limits_of(requirement: Requirement) -> tuple[Limit, ...]:
    """Every limit of the requirement, sustained first, with the implied ones."""
    found = _limits(requirement.slo, Phase.SUSTAINED)
    found.append(Limit(BACKLOG, "max", Phase.SUSTAINED, IMPLIED_BACKLOG, implied=True))
    if requirement.profile.burst is not None and requirement.slo_burst.declared():
        found += _limits(requirement.slo_burst, Phase.BURST)
    return tuple(found)


def _limits(slos: Slos, phase: Phase) -> list[Limit]:
    found = [Limit(str(slo.metric), slo.statistic, phase, slo.limit_s, slo.percentile) for slo in slos.latency]
    found += [Limit("spread", str(slo.metric), phase, slo.limit) for slo in slos.spread]
    if slos.goodput_fraction_min is not None:
        found.append(Limit("goodput_fraction", "min", phase, slos.goodput_fraction_min))
    if slos.shed_fraction_max is not None:
        found.append(Limit("shed_fraction", "max", phase, slos.shed_fraction_max))
    elif slos.goodput_fraction_min is None:
        found.append(Limit("shed_fraction", "max", phase, _implied_shed(slos), implied=True))
    return found


def _implied_shed(slos: Slos) -> float:
    """As many as the loosest percentile on a first or last token lets be late, and at most ``IMPLIED_SHED``."""
    allowed = [1.0 - slo.percentile / 100.0 for slo in slos.latency if slo.metric in (LatencyMetric.TTFT, LatencyMetric.E2E)]
    return min([IMPLIED_SHED, *allowed])


def limit_name(limit: Limit) -> str:
    """As people write it: ``TTFT P99``, ``spread of E2E``, ``goodput``; a burst is named."""
    if limit.is_latency:
        name = f"{_METRICS[limit.metric]} {limit.statistic.upper()}"
    elif limit.metric == "spread":
        name = f"spread of {_METRICS[limit.statistic]}"
    else:
        name = {"goodput_fraction": "goodput", "shed_fraction": "refused", BACKLOG: "backlog"}[limit.metric]
    return name if limit.phase is Phase.SUSTAINED else f"{name} in the burst"


def limit_number(limit: Limit, value: float) -> str:
    """A value of the limit's own kind: ``300 ms``, ``95 %``, ``3x``."""
    if limit.is_latency:
        return round_seconds(float(f"{value:.3g}"), " ")
    return f"{value:.3g}x" if limit.metric == "spread" else round_percent(float(f"{value:.4g}"), " ")


def ttft_places(limits: Sequence[Limit]) -> tuple[int, ...]:
    """Places of the limits on percentiles of TTFT."""
    return tuple(place for place, limit in enumerate(limits) if limit.is_latency and limit.metric == LatencyMetric.TTFT)
