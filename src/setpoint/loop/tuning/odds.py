"""How likely each configuration is to be a better choice than the best measured one, by the rule of ``report/choice.py``.

Every configuration is looked at in three worlds: steps as predicted, and as fast and as slow as they are with at most 5 %
probability. One that is not better in any of them is better with at most that probability, since a configuration that meets
its limits does not miss them on a faster machine, and what it is better by changes with the machine's speed in one direction
at a time. The others, at most ``MOST_CONTENDERS``, are looked at in ten equally likely worlds; the share of those in which one
is better is its chance.

Better is said of two in the same world: a candidate that would be judged met where the best measured one was not, or whose
objective is ahead by more than what counts as equal. The best one keeps the verdict that was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from setpoint.loop.forecast.forecast import Forecast, Outcome, summed_up
from setpoint.loop.forecast.machine import KnownMachine
from setpoint.loop.forecast.worlds import World, central_worlds, extreme_worlds, likely_worlds
from setpoint.policy.configuration import ServingConfig
from setpoint.record import Candidate
from setpoint.report.choice import best_of, clearly_better
from setpoint.requirement import Objective

MOST_CONTENDERS = 6


class Looks(Protocol):
    """Simulates configurations in worlds (``forecast.several.Forecaster``)."""

    def outcomes(
        self, configs: Mapping[str, ServingConfig], machine: KnownMachine, worlds: Sequence[World]
    ) -> Mapping[str, tuple[Outcome, ...]]: ...


@dataclass(frozen=True, slots=True)
class Prospect:
    """A configuration as it is seen now. chance: that it is a better choice than the best measured one; before anything was
    measured, that it is the best of all. closely: whether it was looked at in the likely worlds."""

    name: str
    forecast: Forecast
    chance: float
    closely: bool


def prospects(
    space: Mapping[str, ServingConfig],
    looks: Looks,
    machine: KnownMachine,
    best: Candidate | None,
    objective: Objective,
    *,
    seed: int,
) -> dict[str, Prospect]:
    """Every configuration of ``space``, in its order. ``best``: the best measured one, with its name in ``space``."""
    central, extreme, likely = central_worlds(seed), extreme_worlds(seed), likely_worlds(seed)
    quick_worlds = (central[0], *extreme)
    quick = looks.outcomes(space, machine, quick_worlds)
    contenders = _contenders(space, quick, best, objective)
    close = [*contenders, best.name] if best is not None and best.name in space else contenders
    closer = looks.outcomes({name: space[name] for name in close}, machine, (*central[1:], *likely))
    found: dict[str, Prospect] = {}
    for name, config in space.items():
        outcomes = (*quick[name], *closer.get(name, ()))
        told = summed_up(config, outcomes, machine.error_for(config.max_running))
        chance = 0.0
        if name in contenders:
            chance = sum(_wins(name, world, space, closer, contenders, best, objective) for world in likely) / len(likely)
        found[name] = Prospect(name, told, chance, name in closer)
    return found


def _contenders(
    space: Mapping[str, ServingConfig], quick: Mapping[str, tuple[Outcome, ...]], best: Candidate | None, objective: Objective
) -> list[str]:
    """Those worth a closer look, the most promising first."""
    entries = {name: [each.candidate(name, space[name]) for each in quick[name]] for name in space}
    open_ = [name for name in space if best is None or name != best.name]
    if best is not None and best.name in entries:
        ours = [_as_measured(each, best) for each in entries[best.name]]
        open_ = [
            name
            for name in open_
            if any(clearly_better(each, own, objective) for each, own in zip(entries[name], ours, strict=True))
        ]
    found: list[str] = []
    while open_ and len(found) < MOST_CONTENDERS:
        # In turn the best as predicted, on a slow machine and on a fast one: all three may turn out to be so.
        place = (0, 2, 1)[len(found) % 3]
        leader = best_of([entries[name][place] for name in open_], objective).name
        found.append(leader)
        open_.remove(leader)
    return found


def _wins(
    name: str,
    world: World,
    space: Mapping[str, ServingConfig],
    closer: Mapping[str, tuple[Outcome, ...]],
    contenders: Sequence[str],
    best: Candidate | None,
    objective: Objective,
) -> bool:
    def entry(each: str) -> Candidate:
        outcome = next(found for found in closer[each] if found.world == world)
        return outcome.candidate(each, space[each])

    if best is None:
        return best_of([entry(each) for each in contenders], objective).name == name
    if best.name not in closer:
        return clearly_better(entry(name), best, objective)
    return clearly_better(entry(name), _as_measured(entry(best.name), best), objective)


def _as_measured(predicted: Candidate, best: Candidate) -> Candidate:
    """The figures of a world with the verdict that was measured."""
    return predicted.model_copy(update={"slo": best.slo})
