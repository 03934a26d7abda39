"""The load of a trial: the profile's requests brought to a rate, in phases long enough for what they have in common to show."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from setpoint.plan.trial import Job
from setpoint.record import Phase
from setpoint.requirement import RequestProfile, Requirement
from setpoint.simulate.load import Load, nothing_shared
from setpoint.simulate.offered import TurnPace, load_of_profile
from setpoint.simulate.offered import limits_of as deadlines_of
from setpoint.simulate.sequences import Kind
from setpoint.workload.drafts import mean_turns
from setpoint.workload.lengths import mean_seconds, mean_tokens

JUDGED = (Phase.SUSTAINED, Phase.BURST)
PATTERNS, MOST_PATTERN_REQUESTS = 3, 20_000
LEAST_SESSIONS, MOST_SESSION_REQUESTS = 10, 2000
SESSIONS_SHARE = 5.0
"""Requests of conversations that are under way before a trial begins, at most so many times those it measures."""

LONGER_SESSIONS = 2.0
"""Sessions of up to so many times the mean number of turns are given the time to come to all of them."""


def offered_load(requirement: Requirement, job: Job) -> Load:
    """The profile's requests brought to the job's rate, the same ones at every rate: warm-up, sustained, burst if limited.

    Where the rate follows a pattern there are whole patterns of it (``_whole_patterns``), so there may be more requests. The
    burst is as much above the rate as in the requirement. Where requests come in conversations, the warm-up is longer by as
    much as these last (``_conversations``), so that all turns come as often as they will. At the end requests go on arriving
    for a while, and are not followed once those before them have ended.
    """
    profile = requirement.profile
    burst = profile.burst if requirement.slo_burst.declared() else None
    profile = profile.model_copy(update={"burst": burst}).at_rate(job.rate_rps)
    requests = max(float(job.requests), min(LEAST_SESSIONS * mean_turns(profile.shapes), MOST_SESSION_REQUESTS))
    profile, sustained_s = _whole_patterns(profile, requests, job.rate_rps)
    lasts_s, pace = _conversations(profile, job)
    load = load_of_profile(
        profile,
        Kind(streaming=profile.streaming, limits=deadlines_of(requirement.slo)),
        seed=job.seed,
        warmup_s=job.warmup_requests / job.rate_rps + lasts_s,
        sustained_s=sustained_s,
        recovery_s=0.0,
        drain_s=math.inf,
        cool_down_s=job.cool_down_s,
        pace=pace,
    )
    last = max(place for place, span in enumerate(load.phases) if span.phase in JUDGED)
    load = replace(load, followed=int(np.count_nonzero(load.phase <= last)))
    return load if job.serving.prefix_caching else replace(load, named=nothing_shared)


def _whole_patterns(profile: RequestProfile, requests: float, rate_rps: float) -> tuple[RequestProfile, float]:
    """The profile and the seconds of its sustained phase, in which there are whole patterns of arrivals if the rate has one.

    A pattern of more than ``MOST_PATTERN_REQUESTS`` requests is made shorter, its rates as they are.
    """
    sustained_s, pattern_s = requests / rate_rps, profile.arrival.pattern_s
    if pattern_s is None:
        return profile, sustained_s
    most_s = MOST_PATTERN_REQUESTS / rate_rps
    if pattern_s > most_s:
        profile = profile.model_copy(update={"arrival": profile.arrival.at_pattern(most_s)})
        pattern_s = profile.arrival.pattern_s or most_s
    patterns = max(1, math.ceil(sustained_s / pattern_s - 1e-9), min(PATTERNS, int(most_s / pattern_s)))
    return profile, patterns * pattern_s


def _conversations(profile: RequestProfile, job: Job) -> tuple[float, TurnPace]:
    """How long conversations last, 0 where there are none, and how their turns follow each other.

    Where more than ``MOST_SESSION_REQUESTS`` requests come in that time, or ``SESSIONS_SHARE`` times those measured, all think
    times are shorter by one factor: turns come as often, with less time in which a cache may forget what was said.
    """
    answers_s = thinking_s = 0.0
    for shape in profile.shapes:
        if shape.sessions is None:
            continue
        turns = min(float(shape.sessions.turns.largest), LONGER_SESSIONS * mean_tokens(shape.sessions.turns))
        answers_s = max(answers_s, (turns - 1) * job.answer_s)
        thinking_s = max(thinking_s, (turns - 1) * mean_seconds(shape.sessions.think_time))
    most_s = min(MOST_SESSION_REQUESTS, SESSIONS_SHARE * job.requests) / job.rate_rps
    share = min(1.0, max(0.0, most_s - answers_s) / thinking_s) if thinking_s else 1.0
    return min(most_s, answers_s + share * thinking_s), TurnPace(job.answer_s, share)
