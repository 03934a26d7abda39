"""Configurations that could be served instead of the present one without a restart, within the bounds."""

from __future__ import annotations

from collections.abc import Sequence

from setpoint.loop.adapt.rails import Bounds
from setpoint.policy.changing import LIVE_FIELDS
from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode

RUNNING = (1, 2, 4, 8, 16, 32, 64, 128)
BUDGETS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
MOST_CHOICES = 48
MOST_SETPOINT_BUDGET = 512


def choices(present: ServingConfig, bounds: Bounds) -> list[ServingConfig]:
    """At most ``MOST_CHOICES``, nearest to ``present`` first, which is not among them.

    Each mode with the running limits and token budgets that matter to it: ``immediate`` has no running limit, and ``setpoint``
    sizes its prompts itself, so for it the budget is only that of the present or ``MOST_SETPOINT_BUDGET``.
    """
    found = [
        present.model_copy(update={"mode": mode, "max_running": running, "token_budget": budget})
        for mode in (present.mode, *(each for each in bounds.modes if each is not present.mode))
        for running in _running(mode, present, bounds)
        for budget in _budgets(mode, present, bounds)
    ]
    allowed = [config for config in dict.fromkeys(found) if bounds.allow(config) and config != present]
    return sorted(allowed, key=lambda config: distance(present, config))[:MOST_CHOICES]


def other_drafting(present: ServingConfig, drafter: SpeculationMode) -> ServingConfig:
    """``present`` with drafts off where they are on, else with those of ``drafter``, which the server was started with."""
    off = present.speculation is SpeculationMode.OFF
    return present.model_copy(update={"speculation": drafter if off else SpeculationMode.OFF})


def distance(first: ServingConfig, second: ServingConfig) -> float:
    """How far apart: a change of mode counts as much as a factor of 4 in one number."""
    apart = 2.0 * (first.mode is not second.mode)
    for one, other in ((first.max_running, second.max_running), (first.token_budget, second.token_budget)):
        apart += abs(max(one, 1).bit_length() - max(other, 1).bit_length()) + 0.01 * (one != other)
    return apart


def changes(before: ServingConfig, after: ServingConfig) -> dict[str, tuple[object, object]]:
    """Fields that differ, with both values as JSON has them."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    return {name: (old[name], new[name]) for name in old if old[name] != new[name]}


def named(config: ServingConfig) -> str:
    """What distinguishes a choice, in a word."""
    drafts = "" if config.speculation is SpeculationMode.OFF else f"+{config.speculation.value}"
    return f"{config.mode.value}-{config.max_running}/{config.token_budget}{drafts}"


def live_key(config: ServingConfig) -> tuple[object, ...]:
    """Equal for configurations that are the same while the engine runs."""
    values = config.model_dump(mode="json")
    return tuple(values[name] for name in sorted(LIVE_FIELDS))


def _running(mode: BatchingMode, present: ServingConfig, bounds: Bounds) -> Sequence[int]:
    if mode is BatchingMode.IMMEDIATE:
        return (present.max_running,)
    least, most = bounds.max_running
    return sorted({each for each in RUNNING if least <= each <= most} | {present.max_running})


def _budgets(mode: BatchingMode, present: ServingConfig, bounds: Bounds) -> Sequence[int]:
    least, most = bounds.token_budget
    if mode is BatchingMode.SETPOINT:
        return sorted({present.token_budget, min(max(MOST_SETPOINT_BUDGET, least), most)})
    return sorted({each for each in BUDGETS if least <= each <= most} | {present.token_budget})
