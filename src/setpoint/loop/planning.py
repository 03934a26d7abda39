"""The plan of a measurement: an open loop, a closed one, or a trace; by time, or by number of requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from setpoint.loop.errors import BadInput
from setpoint.loop.measuring import plan_requests
from setpoint.loop.schedule import Schedule
from setpoint.record import Phase
from setpoint.requirement import Requirement
from setpoint.requirement.arrival import STATIONARY
from setpoint.workload.closed import plan_closed
from setpoint.workload.plan import LoadPlan
from setpoint.workload.prompt import Prompt, PromptBlock, PromptMaker

if TYPE_CHECKING:
    from setpoint.loop.measure import MeasureOptions

MOST_TRIES = 6
LEAST_S = 1e-9


def plan_for(
    requirement: Requirement, options: MeasureOptions, make_prompt: PromptMaker, *, most_tokens: int | None = None
) -> LoadPlan:
    """Every request of the run before the first is sent. Raises ``BadInput`` for a load that cannot be.

    most_tokens: of prompt and answer together, where the server says; a trace is cut to it.
    """
    schedule = options.schedule
    if options.trace is not None:
        return options.trace.plan(schedule, seed=options.seed, make_prompt=make_prompt, most_tokens=most_tokens)
    if options.concurrency is not None:
        try:
            return plan_closed(
                requirement.profile,
                concurrency=options.concurrency,
                requests=options.requests,
                duration_s=schedule.sustained_s if options.requests is None else None,
                seed=options.seed,
                warmup_s=schedule.warmup_s,
                make_prompt=make_prompt,
            )
        except ValueError as error:
            raise BadInput(f"this load cannot be planned: {error}") from error
    if options.requests is not None and _countable(requirement):
        schedule = _for_requests(requirement, schedule, options.requests, options.seed)
        return _cut(plan_requests(requirement, schedule, seed=options.seed, make_prompt=make_prompt), options.requests)
    return plan_requests(requirement, schedule, seed=options.seed, make_prompt=make_prompt)


def _countable(requirement: Requirement) -> bool:
    """Not where the rate changes with the length of the phase, nor where requests follow each other."""
    profile = requirement.profile
    return profile.arrival.process in STATIONARY and not profile.has_conversations


def _for_requests(requirement: Requirement, schedule: Schedule, requests: int, seed: int) -> Schedule:
    """The schedule whose sustained phase holds exactly so many requests.

    The phase ends half way between the last of them and the one that is not sent any more, ``LEAST_S`` after the last at least:
    of what comes in the same instant the rest is cut off (``_cut``).
    """
    profile = requirement.profile
    calm = requirement.model_copy(update={"profile": profile.model_copy(update={"burst": None})})
    margin = 1.0 + 6.0 * profile.arrival.cv / np.sqrt(requests)
    for _ in range(MOST_TRIES):
        length_s = (requests + 2) * margin / profile.arrival.mean_rps
        plan = plan_requests(calm, replace(schedule, sustained_s=length_s), seed=seed, make_prompt=_no_prompt)
        times_s = [request.intended_s for request in plan.requests if request.phase is Phase.SUSTAINED]
        if len(times_s) > requests:
            end_s = max(times_s[requests - 1] + LEAST_S, (times_s[requests - 1] + times_s[requests]) / 2)
            return replace(schedule, sustained_s=end_s - schedule.warmup_s)
        margin *= 2.0
    return schedule


def _cut(plan: LoadPlan, requests: int) -> LoadPlan:
    """The plan without the sustained requests after so many; nothing follows another."""
    places = [place for place, each in enumerate(plan.requests) if each.phase is Phase.SUSTAINED]
    surplus = set(places[requests:])
    if not surplus:
        return plan
    kept = [each for place, each in enumerate(plan.requests) if place not in surplus]
    return replace(plan, requests=[replace(each, index=place) for place, each in enumerate(kept)])


def _no_prompt(*, tokens: int, shared_prefix_tokens: int, seed: int, serial: int, blocks: Sequence[PromptBlock] = ()) -> Prompt:
    """For a plan of which only the times count."""
    return Prompt("", tokens, exact=True)
