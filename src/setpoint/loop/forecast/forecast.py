"""A forecast of one configuration: the simulated engine under the requirement's load, in several worlds (``worlds.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from setpoint.loop.forecast.central import central_figures
from setpoint.loop.forecast.drafting import drafting_of
from setpoint.loop.forecast.machine import KnownMachine
from setpoint.loop.forecast.worlds import World, central_worlds, likely_worlds
from setpoint.loop.schedule import Schedule, schedule_for
from setpoint.loop.simulation.figures import gap_limits_s, growing, judged, phase_figures
from setpoint.policy.configuration import ServingConfig
from setpoint.record import Candidate, Phase, Predicted, SloCheck, SloReport, Verdict
from setpoint.report.check_words import is_floor
from setpoint.report.figures import request_slos
from setpoint.requirement import Requirement
from setpoint.simulate.load import Load
from setpoint.simulate.offered import limits_of, load_of_profile
from setpoint.simulate.run import simulate
from setpoint.simulate.sequences import Kind

MOST_LOADS = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one world showed. ``held``: every figure within its limit, whether or not the sample is large enough to show it."""

    world: World
    predicted: Predicted
    slo: SloReport

    @property
    def met(self) -> bool:
        """Whether the measurement would be judged met."""
        return self.slo.verdict is Verdict.MET

    @property
    def held(self) -> bool:
        """Whether every figure is within its limit."""
        return all(check.verdict is Verdict.MET or _within(check) for check in self.slo.checks)

    def candidate(self, name: str, config: ServingConfig) -> Candidate:
        """As an entry of a report, for the rules of choice."""
        return Candidate(name=name, config=config.model_dump(mode="json"), predicted=self.predicted, slo=self.slo)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a configuration is predicted to show.

    predicted, slo: figures and checks, the median of the central worlds. held_probability: that every limit holds, over the
    likely worlds (``None`` where only central ones were looked at). error: of the machine, for this configuration.
    """

    config: ServingConfig
    predicted: Predicted
    slo: SloReport
    outcomes: tuple[Outcome, ...]
    held_probability: float | None
    error: float

    def in_world(self, world: World) -> Outcome | None:
        """What that world showed."""
        return next((each for each in self.outcomes if each.world == world), None)


def forecast(
    requirement: Requirement,
    config: ServingConfig,
    machine: KnownMachine,
    *,
    seed: int = 0,
    sustained_s: float | None = None,
    schedule: Schedule | None = None,
    worlds: Sequence[World] | None = None,
) -> Forecast:
    """Simulate ``config`` on ``machine`` under the load that ``setpoint measure`` would send with ``seed``.

    schedule: its phases (default: as ``setpoint tune`` takes them; ``sustained_s`` of the sustained one). worlds: what is
    looked at (default: the central and the likely ones); there must be a central one. Deterministic. Raises ``ValueError``
    for a load that cannot be.
    """
    phases = schedule or schedule_for(requirement, sustained_s=sustained_s)
    looked = tuple(worlds) if worlds is not None else (*central_worlds(seed), *likely_worlds(seed))
    error = machine.error_for(config.max_running)
    outcomes = tuple(outcome_in(world, requirement, config, machine, phases, error) for world in looked)
    return summed_up(config, outcomes, error)


def summed_up(config: ServingConfig, outcomes: tuple[Outcome, ...], error: float) -> Forecast:
    """The forecast that ``outcomes`` come to. Raises ``ValueError`` without a central one."""
    central = [each for each in outcomes if each.world.deviation == 0.0]
    if not central:
        raise ValueError("a forecast needs a world in which steps are as predicted")
    likely = [each for each in outcomes if each.world in _likely_of(outcomes)]
    predicted, slo = central_figures([(each.predicted, each.slo) for each in central])
    share = sum(each.held for each in likely) / len(likely) if likely else None
    return Forecast(config, predicted, slo, outcomes, share, error)


def _likely_of(outcomes: Sequence[Outcome]) -> frozenset[World]:
    seeds = {each.world.arrivals for each in outcomes if each.world.deviation == 0.0}
    return frozenset(world for seed in seeds for world in likely_worlds(seed))


def outcome_in(
    world: World, requirement: Requirement, config: ServingConfig, machine: KnownMachine, schedule: Schedule, error: float
) -> Outcome:
    """Simulate one world, ``error`` being one standard deviation of the logarithm of how slow the machine is."""
    load = _load(requirement.model_dump_json(), schedule, world.arrivals)
    system = machine.system(config, world.stretch(error), drafting_of(requirement, config))
    done = simulate(load, system, seed=world.noise, gap_limits_s=gap_limits_s(requirement))
    steady = not growing(done)
    figures = {
        phase: phase_figures(
            done,
            phase,
            request_slos(requirement, phase),
            price=requirement.price,
            steady=steady and phase is Phase.SUSTAINED,
        )
        for phase in (Phase.SUSTAINED, Phase.BURST)
        if any(each.phase is phase for each in load.phases)
    }
    predicted = Predicted(sustained=figures[Phase.SUSTAINED], burst=figures.get(Phase.BURST), source=machine.source)
    return Outcome(world, predicted, judged(done, requirement))


@lru_cache(maxsize=MOST_LOADS)
def _load(requirement_json: str, schedule: Schedule, seed: int) -> Load:
    """The requirement's load by ``seed``; made once, for it is the same for every configuration."""
    requirement = Requirement.model_validate_json(requirement_json)
    return load_of_profile(
        requirement.profile,
        Kind(streaming=requirement.profile.streaming, limits=limits_of(request_slos(requirement, Phase.SUSTAINED))),
        seed=seed,
        warmup_s=schedule.warmup_s,
        sustained_s=schedule.sustained_s,
        recovery_s=schedule.recovery_s,
        burst_repeats=schedule.bursts,
        drain_s=schedule.drain_s,
    )


def _within(check: SloCheck) -> bool:
    if check.value is None or check.verdict is Verdict.MISSED:
        return False
    return check.value >= check.limit if is_floor(check) else check.value <= check.limit
