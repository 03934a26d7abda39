"""How long to measure: as many samples as the requirement's percentiles take, within bounds a person would accept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, inf

from setpoint.requirement import LatencyMetric, Requirement, Slos

# Independent samples for a two-sided 95 % interval of the percentile to exist at all (binomial order statistics), and half
# as many again or more because consecutive requests are not independent.
SAMPLES_FOR_PERCENTILE = ((50.0, 30), (90.0, 90), (95.0, 135), (99.0, 560), (99.9, 5600))
LEAST_SUSTAINED_S = 20.0
MOST_SUSTAINED_S = 300.0
DEFAULT_WARMUP_S = 5.0
# Without limits only throughput is compared: the batch must be full before the phase begins.
THROUGHPUT_WARMUP_S = 8.0
LEAST_DRAIN_S, MOST_DRAIN_S = 5.0, 60.0
MEASUREMENTS_IN_BUDGET = 3
BESIDE_MEASUREMENT_S = 20.0
"""Rough seconds to forecast, and to start a server, before each measurement."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds of each phase; ``drain_s`` is how long answers are waited for at most: a run ends when nobody is under way."""

    warmup_s: float = 3.0
    sustained_s: float = 30.0
    recovery_s: float = 2.0
    drain_s: float = LEAST_DRAIN_S
    bursts: int = 1

    @property
    def usual_drain_s(self) -> float:
        """What a run that keeps up is taken to need of ``drain_s``."""
        return min(self.drain_s, LEAST_DRAIN_S)


def samples_needed(slos: Slos) -> int:
    """Requests that the tightest stated percentile takes (gaps are plenty: ITL needs fewer requests than TTFT)."""
    percentiles = [slo.percentile for slo in slos.latency if slo.metric.value != "itl"]
    percentiles += [99.0 for _ in slos.spread]
    highest = max(percentiles, default=50.0)
    return next((count for bound, count in SAMPLES_FOR_PERCENTILE if highest <= bound), SAMPLES_FOR_PERCENTILE[-1][1])


def schedule_for(requirement: Requirement, *, sustained_s: float | None = None) -> Schedule:
    """A schedule that can decide the requirement, or as near as ``MOST_SUSTAINED_S`` allows.

    Where the rate of arrivals repeats a pattern, the sustained phase is whole patterns of it, at least one.
    """
    needed_s = samples_needed(requirement.slo) / requirement.profile.arrival.mean_rps
    chosen_s = min(MOST_SUSTAINED_S, max(LEAST_SUSTAINED_S, float(ceil(needed_s))))
    pattern_s = requirement.profile.arrival.pattern_s
    if pattern_s is not None:
        chosen_s = pattern_s * max(1, min(ceil(chosen_s / pattern_s), int(MOST_SUSTAINED_S / pattern_s)))
    drain_s = drain_for(requirement)
    if not requirement.slo.declared():
        return Schedule(THROUGHPUT_WARMUP_S, sustained_s or chosen_s, drain_s=drain_s)
    return Schedule(sustained_s=sustained_s or chosen_s, drain_s=drain_s)


def drain_for(requirement: Requirement) -> float:
    """How long answers may still come: as long as the longest within the limits takes, where limits say so, in bounds.

    What has not ended by then is late. A shorter wait would cut healthy answers off and count them as late.
    """
    burst = requirement.slo_burst if requirement.profile.burst is not None else Slos()
    phases = [slos for slos in (requirement.slo, burst) if slos.latency] or [Slos()]
    tokens = requirement.profile.most_output_tokens
    return min(MOST_DRAIN_S, max(LEAST_DRAIN_S, *(_longest_answer_s(slos, tokens) for slos in phases)))


def _longest_answer_s(slos: Slos, tokens: int) -> float:
    """Seconds of an answer of ``tokens`` that keeps every limit; infinite where none bounds it."""

    def most_s(*metrics: LatencyMetric) -> float:
        return max((slo.limit_s for slo in slos.latency if slo.metric in metrics), default=inf)

    end_s = most_s(LatencyMetric.E2E)
    if end_s < inf:
        return end_s
    return most_s(LatencyMetric.TTFT) + tokens * most_s(LatencyMetric.ITL, LatencyMetric.TPOT)


def lengthened(schedule: Schedule, requirement: Requirement, budget_s: float) -> Schedule:
    """``schedule`` with the sustained phase as long as lets ``MEASUREMENTS_IN_BUDGET`` fit into ``budget_s``, never shorter.

    More samples settle what a short phase leaves open. One that is made of whole patterns of the arrival rate stays as it is.
    """
    if requirement.profile.arrival.pattern_s is not None:
        return schedule
    burst = requirement.profile.burst
    bursts_s = schedule.bursts * (burst.duration_s + schedule.recovery_s) if burst is not None else 0.0
    beside_s = BESIDE_MEASUREMENT_S + schedule.warmup_s + bursts_s + schedule.usual_drain_s
    room_s = budget_s / MEASUREMENTS_IN_BUDGET - beside_s
    return replace(schedule, sustained_s=max(schedule.sustained_s, min(MOST_SUSTAINED_S, room_s)))
