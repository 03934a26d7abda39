"""The load of a closed loop: a fixed number of users, each of whom sends the next request when the last one has ended."""

from __future__ import annotations

import math

import numpy as np

from setpoint.record import Phase
from setpoint.requirement import RequestProfile
from setpoint.workload.building import MAX_PROMPT_TOKENS, MAX_REQUESTS, build
from setpoint.workload.drafts import Draft, Segment, mean_turns
from setpoint.workload.lengths import mean_tokens
from setpoint.workload.planned import LoadPlan, PhaseSpan
from setpoint.workload.prompt import PromptMaker

MAX_CONCURRENCY = 100_000

# No server is faster than this for one user: a loop by time has as many requests as such a server would take.
FASTEST_ANSWER_S = 0.005
FASTEST_TOKEN_S = 0.001


def plan_closed(
    profile: RequestProfile,
    *,
    concurrency: int,
    requests: int | None = None,
    duration_s: float | None = None,
    seed: int,
    warmup_s: float,
    make_prompt: PromptMaker,
) -> LoadPlan:
    """A closed loop of ``concurrency`` users, by number of ``requests`` or by time; lengths and prompts as the profile says.

    By time the warm-up takes ``warmup_s`` and the sustained phase ``duration_s``, and the plan has more requests than a
    fast server could answer in that time; one that answers them all ends the run, and its sustained phase, earlier. By
    number the warm-up, unless ``warmup_s`` is 0, is the first request (or session) of every user, and then come ``requests``.
    See ``LoadPlan`` for what the client makes of it. Rate, burst and process of the profile play no part. Raises
    ``ValueError`` for arguments that cannot be, or a plan that is too large.
    """
    _check(concurrency, requests, duration_s, seed, warmup_s)
    warmup = Segment(seed, 0, Phase.WARMUP)
    sustained = Segment(seed, 1, Phase.SUSTAINED)
    if requests is not None:
        drafts = _drafts(warmup, profile, concurrency) if warmup_s > 0 else []
        drafts += _so_many(sustained, profile, requests)
        phases = [PhaseSpan(phase, 0.0, 0.0) for phase in dict.fromkeys(draft.phase for draft in drafts)]
    else:
        assert duration_s is not None
        end_s = warmup_s + duration_s
        phases = [PhaseSpan(Phase.WARMUP, 0.0, warmup_s)] if warmup_s > 0 else []
        phases.append(PhaseSpan(Phase.SUSTAINED, warmup_s, end_s))
        drafts = _drafts(sustained, profile, _enough(profile, concurrency, end_s))
    return build(drafts, seed=seed, phases=phases, make_prompt=make_prompt, concurrency=concurrency)


def _drafts(segment: Segment, profile: RequestProfile, arrivals: int) -> list[Draft]:
    """The drafts of so many requests or sessions, all at time 0."""
    drafts = segment.drafts(np.zeros(arrivals), profile.shapes, 2 * MAX_REQUESTS)
    for draft in drafts:
        draft.time_s = 0.0
    return drafts


def _so_many(segment: Segment, profile: RequestProfile, requests: int) -> list[Draft]:
    """The drafts of exactly so many requests; the last session may be cut short."""
    arrivals = math.ceil(requests / mean_turns(profile.shapes))
    drafts = _drafts(segment, profile, arrivals)
    while len(drafts) < requests:
        arrivals += requests - len(drafts)
        drafts = _drafts(segment, profile, arrivals)
    return drafts[:requests]


def _enough(profile: RequestProfile, concurrency: int, duration_s: float) -> int:
    """As many requests or sessions as a fast server would take of ``concurrency`` users, within what can be planned."""
    shapes = profile.shapes
    weights = [shape.weight for shape in shapes]
    outputs = float(np.average([mean_tokens(shape.output_tokens) for shape in shapes], weights=weights))
    prompts = float(np.average([mean_tokens(shape.prompt_tokens) for shape in shapes], weights=weights))
    turns = mean_turns(shapes)
    answer_s = FASTEST_ANSWER_S + FASTEST_TOKEN_S * outputs
    wanted = concurrency * (duration_s / answer_s + 1)
    possible = min(0.9 * MAX_REQUESTS, 0.8 * MAX_PROMPT_TOKENS / prompts)
    return max(1, math.ceil(min(wanted, possible) / turns))


def _check(concurrency: int, requests: int | None, duration_s: float | None, seed: int, warmup_s: float) -> None:
    if seed < 0:
        raise ValueError(f"seed is {seed}; allowed: a whole number of at least 0")
    if not 1 <= concurrency <= MAX_CONCURRENCY:
        raise ValueError(f"concurrency is {concurrency}; allowed: 1 to {MAX_CONCURRENCY}")
    if (requests is None) == (duration_s is None):
        raise ValueError("a closed loop ends by a number of requests or by a duration; give one of them")
    if requests is not None and not 1 <= requests <= MAX_REQUESTS:
        raise ValueError(f"requests is {requests}; allowed: 1 to {MAX_REQUESTS}")
    if duration_s is not None and not 0 < duration_s < math.inf:
        raise ValueError(f"duration_s is {duration_s}; allowed: more than 0 s")
    if not 0 <= warmup_s < math.inf:
        raise ValueError(f"warmup_s is {warmup_s}; allowed: a duration of at least 0 s")
