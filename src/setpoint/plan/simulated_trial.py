"""A trial through the simulator: one replica of a shape, the profile's requests, and what every limit came to."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from setpoint.engine.speculation.draft import READ_TOKENS
from setpoint.hardware.deployment import Deployment
from setpoint.hardware.drafting import pass_timer
from setpoint.hardware.front_end import front_end_s
from setpoint.hardware.step_time import StepTimer, step_timer
from setpoint.plan.curve import Floats
from setpoint.plan.keeping_up import backlog_fraction
from setpoint.plan.latency import PERCENT, latency_metric
from setpoint.plan.limits import limits_of
from setpoint.plan.samples import PhaseSamples, excess_table
from setpoint.plan.space import BLOCK_TOKENS
from setpoint.plan.topology import Scheduler, Serving
from setpoint.plan.trial import Job, Trial
from setpoint.plan.trial_load import JUDGED, offered_load
from setpoint.policy.configuration import ServingConfig
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.survival import SurvivalProfile
from setpoint.record import Phase, Predicted, SloReport
from setpoint.report.figures import request_slos
from setpoint.requirement import LatencyMetric, LatencySlo, Requirement, Slos
from setpoint.simulate.acceptance import AcceptedDrafts
from setpoint.simulate.drafter import WHOLE_TEXT, Drafting
from setpoint.simulate.gaps import bin_s
from setpoint.simulate.ledger import Ending
from setpoint.simulate.run import Flavour, Simulated, SimulatedSystem, simulate
from setpoint.simulate.taught import taught_model
from setpoint.simulate.timing import Overheads

GAP_FACTORS = (0.4, 0.7, 1.0, 1.4, 2.2)
"""Multiples of the ITL limit against which gaps are counted, so that goodput under stretched time is known."""


Look = Callable[[Requirement, Simulated, str, float | None], tuple[Predicted, SloReport]]
"""Figures and checks of a simulation, given where its steps come from and what it costs an hour."""


class _Hidden:
    """A deployment that counts as equal to any other with the same fields that matter to a timer."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.key = (
            deployment.tensor_parallel,
            deployment.data_parallel,
            deployment.expert_parallel,
            deployment.engine,
            deployment.weight_precision,
            deployment.kv_precision,
        )

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hidden) and other.key == self.key


def run_trial(requirement: Requirement, job: Job, look: Look | None = None) -> Trial:
    """The trial of a job, with what ``look`` makes of a full one. Deterministic: all is drawn from the job's seed."""
    load = offered_load(requirement, job)
    done = simulate(load, system_of(job), seed=job.seed, gap_limits_s=_gap_limits_s(requirement, full=job.full))
    phases = [samples_of(done, place, requirement) for place, phase in enumerate(load.phases) if phase.phase in JUDGED]
    slos = {phase: request_slos(requirement, phase) for phase in Phase}
    excess = excess_table(phases, limits_of(requirement), slos)
    latency_s = phases[0].percentile_s(latency_metric(requirement.profile), PERCENT)
    predicted, slo = None, None
    if job.full and look is not None:
        price = job.shape.usd_per_gpu_h
        usd_per_h = None if price is None else price * job.shape.gpus
        predicted, slo = look(requirement, done, timer_of(job.shape.deployment).source, usd_per_h)
    return Trial(job, excess, latency_s, predicted, slo)


@dataclass(frozen=True, slots=True)
class TrialOf:
    """``run_trial`` of one requirement, as other processes can be given it; ``look`` is a function of a module."""

    requirement: Requirement
    look: Look | None = None

    def __call__(self, job: Job) -> Trial:
        """The trial of a job."""
        return run_trial(self.requirement, job, self.look)


def system_of(job: Job, replicas: int = 1) -> SimulatedSystem:
    """The system that a job describes."""
    shape = job.shape
    block = BLOCK_TOKENS[shape.deployment.engine]
    config = job.serving.config.model_dump_json()
    return SimulatedSystem(
        timer=timer_of(shape.deployment),
        kv_blocks=max(1, shape.kv_tokens // block),
        block_tokens=block,
        configuration=job.serving.config,
        replicas=replicas,
        flavour=Flavour.VLLM if job.serving.scheduler is Scheduler.VLLM else Flavour.SETPOINT,
        overheads=Overheads(receive_s=_front_s(*_names(shape.deployment))),
        model=lambda: copy(_model(config, *_names(shape.deployment))),
        drafting=_drafting(job.serving),
        context_tokens=job.serving.context_tokens or shape.deployment.model.context_tokens,
    )


def _drafting(serving: Serving) -> Drafting | None:
    """What guesses, and how well."""
    guesses = serving.guesses
    if guesses is None:
        return None
    accepted = AcceptedDrafts(SurvivalProfile(guesses.survival), guesses.share)
    if guesses.draft is None:
        return Drafting(accepted)
    read = WHOLE_TEXT if serving.scheduler is Scheduler.VLLM else READ_TOKENS
    return Drafting(accepted, _pass_timer(*_names(guesses.draft)), read)


@lru_cache(maxsize=256)
def _model(config: str, names: tuple[str, str], hidden: _Hidden) -> StepTimeModel:
    """What a policy knows of the machine: taught once for a configuration, since it learns no more after that.

    Copied for each simulation, because it notes the shape of the last step.
    """
    return taught_model(_timer(names, hidden), ServingConfig.model_validate_json(config), Overheads())


@lru_cache(maxsize=64)
def _pass_timer(names: tuple[str, str], hidden: _Hidden) -> StepTimer:
    return pass_timer(hidden.deployment)


def timer_of(deployment: Deployment) -> StepTimer:
    """The deployment's step timer, made once in a process."""
    return _timer(*_names(deployment))


def _names(deployment: Deployment) -> tuple[tuple[str, str], _Hidden]:
    return (deployment.model.name, deployment.accelerator.name), _Hidden(deployment)


@lru_cache(maxsize=256)
def _timer(names: tuple[str, str], hidden: _Hidden) -> StepTimer:
    return step_timer(hidden.deployment)


@lru_cache(maxsize=256)
def _front_s(names: tuple[str, str], hidden: _Hidden) -> float:
    return front_end_s(hidden.deployment)


def _gap_limits_s(requirement: Requirement, *, full: bool) -> tuple[float, ...]:
    """What gaps are counted against: the limits themselves for a closer look, their multiples where goodput is limited."""
    phases = ((Phase.SUSTAINED, requirement.slo), (Phase.BURST, requirement.slo_burst))
    found = {slo.limit_s for _, slos in phases for slo in _itl(slos)} if full else set()
    for phase, slos in phases:
        if slos.goodput_fraction_min is not None:
            limits_s = [slo.limit_s for slo in _itl(request_slos(requirement, phase))]
            found |= {limit_s * factor for limit_s in limits_s for factor in GAP_FACTORS}
    return tuple(sorted(found))


def _itl(slos: Slos) -> list[LatencySlo]:
    return [slo for slo in slos.latency if slo.metric is LatencyMetric.ITL]


def samples_of(done: Simulated, place: int, requirement: Requirement) -> PhaseSamples:
    """The columns of one phase, its number being ``place``."""
    ledger, load = done.ledger, done.load
    phase = load.phases[place].phase
    rows = load.phase == place
    ending = ledger.ending[rows]
    shed = np.isin(ending, (Ending.REFUSED, Ending.SHED))
    kept, sent_s = ~shed, load.sent_s[rows]
    served = (ending == Ending.SERVED)[kept]
    first_s, last_s = ledger.first_s[rows][kept] - sent_s[kept], ledger.last_s[rows][kept] - sent_s[kept]
    tokens = ledger.tokens[rows][kept].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot_s = np.where(tokens > 1, (last_s - first_s) / (tokens - 1), np.nan)
    streaming = requirement.profile.streaming
    counts = done.gaps.counts[place].counts
    seen = np.flatnonzero(counts)
    return PhaseSamples(
        phase=phase,
        offered=int(rows.sum()),
        shed=int(shed.sum()),
        ttft_s=np.where(served, first_s, np.inf) if streaming else np.full(len(served), np.nan),
        tpot_s=np.where(served, tpot_s, np.inf) if streaming else np.full(len(served), np.nan),
        e2e_s=np.where(served, last_s, np.inf),
        queue_wait_s=np.where(served, ledger.joined_s[rows][kept] - sent_s[kept] - done.overheads.receive_s, np.inf),
        gap_severity=_gap_severity(done, rows, _itl(request_slos(requirement, phase)))[kept],
        gap_values_s=np.array([bin_s(int(bin_)) for bin_ in seen]) if streaming else np.zeros(0),
        gap_counts=counts[seen].astype(np.float64) if streaming else np.zeros(0),
        backlog=backlog_fraction(done, place),
        front_s=done.overheads.receive_s,
    )


def _gap_severity(done: Simulated, rows: np.ndarray, slos: list[LatencySlo]) -> Floats:
    """By how much the gaps of each request miss the worst of its limits on them, as in ``report.figures.severity``."""
    worst = np.zeros(int(np.count_nonzero(rows)))
    for slo in slos:
        worst = np.fmax(worst, _deciding_gap_s(done, rows, slo) / slo.limit_s)
    return np.asarray(worst, dtype=np.float64)


def _deciding_gap_s(done: Simulated, rows: np.ndarray, slo: LatencySlo) -> Floats:
    """Of each request's gaps the largest that may not be over the limit: the least of the counted limits that it keeps."""
    late = done.ledger.late_gaps[:, rows]
    gaps = np.maximum(done.ledger.tokens[rows] - 1, 0)
    allowed = np.floor((1.0 - slo.percentile / 100.0) * gaps + 1e-9)
    found = np.where(gaps > 0, done.ledger.gap_s[rows], 0.0)
    for limit_s, counts in sorted(zip(done.gaps.limits_s, late, strict=True), key=lambda each: -each[0]):
        found = np.where(counts <= allowed, np.minimum(found, limit_s), found)
    return np.asarray(found, dtype=np.float64)
