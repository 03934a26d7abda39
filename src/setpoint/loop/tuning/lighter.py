"""The lighter load under which a configuration would hold what it missed, by the forecast: which way a user may give way.

The rate is halved between the highest that held and the lowest that did not, ``HALVINGS`` times, bursts in proportion; each is
forecast in the world where steps are as predicted, for as many requests, so that percentiles have their samples. What would
hold under ``LEAST_SHARE`` of the rate is not found. When it is wrong: where a lighter load does not make things better.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Final

from setpoint.loop.forecast.forecast import outcome_in
from setpoint.loop.forecast.machine import KnownMachine
from setpoint.loop.forecast.worlds import central_worlds
from setpoint.loop.schedule import Schedule
from setpoint.policy.configuration import ServingConfig
from setpoint.requirement import Requirement

HALVINGS: Final = 5
LEAST_SHARE: Final = 0.5**HALVINGS


def held_rate_rps(
    requirement: Requirement, config: ServingConfig, machine: KnownMachine, schedule: Schedule, *, seed: int
) -> float | None:
    """Requests a second of the sustained load, under that of ``requirement``; ``None`` if none that was tried would hold."""
    world = central_worlds(seed)[0]
    error = machine.error_for(config.max_running)
    held, missed = 0.0, 1.0
    for _ in range(HALVINGS):
        share = (held + missed) / 2
        longer = replace(schedule, sustained_s=schedule.sustained_s / share, bursts=ceil(schedule.bursts / share))
        if outcome_in(world, at_share(requirement, share), config, machine, longer, error).held:
            held = share
        else:
            missed = share
    return held * requirement.profile.arrival.mean_rps if held else None


def at_share(requirement: Requirement, share: float) -> Requirement:
    """The same at ``share`` of its rate, bursts too."""
    profile = requirement.profile
    return requirement.model_copy(update={"profile": profile.at_rate(profile.arrival.mean_rps * share)})
