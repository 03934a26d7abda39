"""How long to measure: as many samples as the requirement's percentiles take, within bounds a person would accept."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from setpoint.requirement import Requirement, Slos

# Independent samples for a two-sided 95 % interval of the percentile to exist at all (binomial order statistics), and half
# as many again or more because consecutive requests are not independent.
SAMPLES_FOR_PERCENTILE = ((50.0, 30), (90.0, 90), (95.0, 135), (99.0, 560), (99.9, 5600))
LEAST_SUSTAINED_S = 20.0
MOST_SUSTAINED_S = 300.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds of each phase; ``drain_s`` is how long late answers are waited for."""

    warmup_s: float = 3.0
    sustained_s: float = 30.0
    recovery_s: float = 2.0
    drain_s: float = 5.0
    bursts: int = 1


def samples_needed(slos: Slos) -> int:
    """Requests that the tightest stated percentile takes (gaps are plenty: ITL needs fewer requests than TTFT)."""
    percentiles = [slo.percentile for slo in slos.latency if slo.metric.value != "itl"]
    percentiles += [99.0 for _ in slos.spread]
    highest = max(percentiles, default=50.0)
    return next((count for bound, count in SAMPLES_FOR_PERCENTILE if highest <= bound), SAMPLES_FOR_PERCENTILE[-1][1])


def schedule_for(requirement: Requirement, *, sustained_s: float | None = None) -> Schedule:
    """A schedule that can decide the requirement, or as near as ``MOST_SUSTAINED_S`` allows."""
    needed_s = samples_needed(requirement.slo) / requirement.profile.arrival.rate_rps
    chosen_s = min(MOST_SUSTAINED_S, max(LEAST_SUSTAINED_S, float(ceil(needed_s))))
    return Schedule(sustained_s=sustained_s or chosen_s)
