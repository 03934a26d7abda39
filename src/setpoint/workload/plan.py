"""The load of a run, planned before it starts: what is sent, when, and with which limit on the answer."""

from __future__ import annotations

import math
from collections.abc import Iterator

from setpoint.record import Phase
from setpoint.requirement import Arrival, RequestProfile
from setpoint.requirement.arrival import STATIONARY
from setpoint.workload.arrivals import offsets_of
from setpoint.workload.building import MAX_PROMPT_TOKENS, MAX_REQUESTS, build, in_time
from setpoint.workload.drafts import ARRIVALS, Draft, Segment, mean_turns
from setpoint.workload.planned import LoadPlan, PhaseSpan, PlannedRequest, largest_context_tokens
from setpoint.workload.prompt import PromptMaker

MAX_BURST_REPEATS = 1_000

__all__ = [
    "MAX_BURST_REPEATS",
    "MAX_PROMPT_TOKENS",
    "MAX_REQUESTS",
    "LoadPlan",
    "PhaseSpan",
    "PlannedRequest",
    "arrival_in",
    "largest_context_tokens",
    "plan_load",
    "segments_of",
]


def plan_load(
    profile: RequestProfile,
    *,
    seed: int,
    warmup_s: float,
    sustained_s: float,
    burst_repeats: int = 1,
    recovery_s: float,
    make_prompt: PromptMaker,
) -> LoadPlan:
    """The load of an open loop: warm-up, sustained, then ``burst_repeats`` times burst and recovery (if there is a burst).

    Warm-up, sustained and recovery have the sustained rate, the burst its own; the arrival process is the same
    throughout. Where the rate changes with time it does so in the sustained phase; the others are Poisson, warm-up and
    recovery at ``Arrival.calm_rps``. With sessions the rate is still that of requests: sessions begin at the rate divided
    by their mean number of turns. A phase of 0 s is left out. Raises ``ValueError`` for times below 0, a negative seed, or
    more than ``MAX_REQUESTS`` requests or ``MAX_PROMPT_TOKENS`` tokens, and what ``make_prompt`` raises.
    """
    _check(seed=seed, warmup_s=warmup_s, sustained_s=sustained_s, burst_repeats=burst_repeats, recovery_s=recovery_s)
    phases: list[PhaseSpan] = []
    drafts: list[Draft] = []
    shapes = profile.shapes
    turns = mean_turns(shapes)
    start_s = 0.0
    for number, (phase, duration_s) in enumerate(segments_of(profile, warmup_s, sustained_s, burst_repeats, recovery_s)):
        if duration_s <= 0:
            continue
        span = PhaseSpan(phase, start_s, start_s + duration_s)
        phases.append(span)
        segment = Segment(seed, number, phase)
        arrival = arrival_in(profile, phase)
        arrival = arrival if turns == 1 else arrival.at_mean(arrival.mean_rps / turns)
        offsets_s = offsets_of(arrival, duration_s, segment.stream(ARRIVALS))
        try:
            drafts += segment.drafts(start_s + offsets_s, shapes, MAX_REQUESTS - len(drafts))
        except ValueError as error:
            raise ValueError(f"more than {MAX_REQUESTS} requests: lower the rate or shorten the {phase.value} phase") from error
        start_s = span.end_s
    if turns != 1:
        drafts = in_time(drafts, phases)
    return build(drafts, seed=seed, phases=phases, make_prompt=make_prompt)


def segments_of(
    profile: RequestProfile, warmup_s: float, sustained_s: float, burst_repeats: int, recovery_s: float
) -> Iterator[tuple[Phase, float]]:
    """Phases and their lengths. The position of a phase names its random streams, so a phase of 0 s keeps its place."""
    yield Phase.WARMUP, warmup_s
    yield Phase.SUSTAINED, sustained_s
    if profile.burst is not None:
        for _ in range(burst_repeats):
            yield Phase.BURST, profile.burst.duration_s
            yield Phase.RECOVERY, recovery_s


def arrival_in(profile: RequestProfile, phase: Phase) -> Arrival:
    """The arrivals of a phase, in requests per second."""
    arrival = profile.arrival
    if phase is Phase.SUSTAINED:
        return arrival
    rate_rps = arrival.calm_rps
    if phase is Phase.BURST and profile.burst is not None:
        rate_rps = profile.burst.rate_rps
    return arrival.model_copy(update={"rate_rps": rate_rps}) if arrival.process in STATIONARY else Arrival(rate_rps=rate_rps)


def _check(*, seed: int, burst_repeats: int, **durations_s: float) -> None:
    if seed < 0:
        raise ValueError(f"seed is {seed}; allowed: a whole number of at least 0")
    if not 0 <= burst_repeats <= MAX_BURST_REPEATS:
        raise ValueError(f"burst_repeats is {burst_repeats}; allowed: 0 to {MAX_BURST_REPEATS}")
    for name, duration_s in durations_s.items():
        if not math.isfinite(duration_s) or duration_s < 0:
            raise ValueError(f"{name} is {duration_s}; allowed: a duration of at least 0 s")
    if durations_s["sustained_s"] == 0:
        raise ValueError("sustained_s is 0; allowed: more than 0 s, because nothing would be measured")
