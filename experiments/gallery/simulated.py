"""A requirement on a named GPU, simulated: the system, a load, the figures, and the most that it carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from setpoint.loop.simulation.figures import gap_limits_s, phase_figures
from setpoint.plan.facts import MODEL, shape_of
from setpoint.plan.space import BLOCK_TOKENS, UNBOUNDED_WAITING
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.record import Phase, PhaseMeasures
from setpoint.report.figures import request_slos
from setpoint.requirement import Requirement, parse_requirement
from setpoint.simulate.offered import limits_of, load_of_profile
from setpoint.simulate.run import Simulated, SimulatedSystem, simulate
from setpoint.simulate.sequences import Kind

DRAIN_S = 3600.0
WARMUP_SHARE = 0.1
BISECTIONS = 7
MOST_DOUBLINGS = 12


@dataclass(frozen=True, slots=True)
class Simulation:
    """A load that was put on a system, and what became of it."""

    requirement: Requirement
    done: Simulated

    def figures(self, phase: Phase = Phase.SUSTAINED) -> PhaseMeasures:
        """The figures of a phase, judged by the requirement."""
        return phase_figures(self.done, phase, request_slos(self.requirement, phase))


def requirement_of(text: str, **changes: object) -> Requirement:
    """The requirement of a YAML text, its ``{NAME}`` filled in."""
    return parse_requirement(text.format(**changes) if changes else text, "experiment")


def system(hardware: str, config: ServingConfig, *, model: str = MODEL, parallel: int = 1) -> SimulatedSystem:
    """A replica of ``model`` on a named GPU with vLLM's kernels, in the model's own precision."""
    shape, timer = shape_of(hardware, model, parallel)
    block = BLOCK_TOKENS["vllm"]
    return SimulatedSystem(timer, shape.kv_tokens // block, block, config)


def vllm_like(max_running: int, token_budget: int) -> ServingConfig:
    """Continuous batching as vLLM does it: chunked prefill within a budget, a queue without bound."""
    return ServingConfig(
        mode=BatchingMode.CONTINUOUS, max_running=max_running, token_budget=token_budget, max_waiting=UNBOUNDED_WAITING
    )


def put(requirement: Requirement, served_by: SimulatedSystem, *, requests: int, seed: int) -> Simulation:
    """The requirement's own load: as many requests as asked for in the sustained phase, then its burst if it has one."""
    profile = requirement.profile
    seconds = requests / profile.arrival.mean_rps
    load = load_of_profile(
        profile,
        Kind(streaming=profile.streaming, limits=limits_of(requirement.slo)),
        seed=seed,
        warmup_s=WARMUP_SHARE * seconds,
        sustained_s=seconds,
        recovery_s=0.0,
        drain_s=DRAIN_S,
    )
    return Simulation(requirement, simulate(load, served_by, seed=seed, gap_limits_s=gap_limits_s(requirement)))


def at_rate(requirement: Requirement, rate_rps: float) -> Requirement:
    """The same requests, more or fewer of them a second."""
    arrival = requirement.profile.arrival.at_mean(rate_rps)
    return requirement.model_copy(update={"profile": requirement.profile.model_copy(update={"arrival": arrival})})


def most_carried_rps(carries: Callable[[float], bool], first_rps: float, bisections: int = BISECTIONS) -> float:
    """The highest rate that is carried: doubled or halved from ``first_rps`` to a bracket, then bisected (7 times: to 1 %).

    0 where no rate down to ``first_rps`` / 2 ** ``MOST_DOUBLINGS`` is.
    """
    low, high = first_rps, first_rps
    for _ in range(MOST_DOUBLINGS):
        if carries(high):
            low, high = high, 2 * high
        elif low < high:
            break
        else:
            low = high = high / 2
    else:
        return low if low < high else 0.0
    for _ in range(bisections):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if carries(middle) else (low, middle)
    return low
