"""``setpoint simulate``: from options to a load and a system, and from what became of it to a report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from setpoint.hardware.accelerator import THIS_MACHINE
from setpoint.hardware.describe import error_words
from setpoint.loop.configs import changed, default_config
from setpoint.loop.contradictions import refuse_beside_trace, refuse_requests_of_a_trace
from setpoint.loop.describe import described_requirement
from setpoint.loop.errors import BadInput
from setpoint.loop.flags import LengthFlags, LoadFlags, OutputFlags, TraceFlags
from setpoint.loop.folder import claim
from setpoint.loop.schedule import DEFAULT_WARMUP_S, Schedule, schedule_for
from setpoint.loop.shorthand import seconds
from setpoint.loop.simulation.figures import gap_limits_s, growing, judged, phase_figures
from setpoint.loop.simulation.speculation import Guessing, guessing_of
from setpoint.loop.traces import TraceChoice
from setpoint.plan.errors import PlanError
from setpoint.plan.fluid import answer_s, at_load, capacity
from setpoint.plan.sketch import check_context, sketch_of
from setpoint.plan.topology import Scheduler, Serving
from setpoint.plan.vllm_command import default_max_running, default_token_budget
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.record import Candidate, Phase, Predicted, Report, Validity, Verdict
from setpoint.report.figures import request_slos
from setpoint.requirement import ModelSource, Requirement, load_requirement
from setpoint.requirement.types import Price
from setpoint.simulate.load import Load
from setpoint.simulate.offered import TurnPace, limits_of, load_of_profile, load_of_trace, sustained_for
from setpoint.simulate.router import Routing
from setpoint.simulate.run import Flavour, Simulated, SimulatedSystem, simulate
from setpoint.simulate.sequences import Kind
from setpoint.simulate.timing import Overheads

if TYPE_CHECKING:
    from setpoint.commands.simulate import SystemFlags
    from setpoint.hardware.deployment import Deployment

BLOCK_TOKENS = {Flavour.SETPOINT: 32, Flavour.VLLM: 16}
UNBOUNDED = 1 << 31
DRAIN_S = 3600.0
"""How long those under way at the end are followed; nobody waits for it."""


def simulate_asked(
    file: Path | None, system: SystemFlags, load: LoadFlags, trace: TraceFlags, length: LengthFlags, output: OutputFlags
) -> Report:
    """Read every option, simulate, and write the run folder if one is asked for. Raises ``BadInput``."""
    _refuse_what_has_no_meaning(load, trace, length, output)
    choice = None if trace.trace is None else _trace_choice(trace, load)
    base = load_requirement(file) if file is not None else None
    needed = described_requirement(base, load) if choice is None else choice.requirement(base, load)
    if system.model is not None:
        needed = needed.model_copy(update={"model": ModelSource(source=system.model)})
    deployment = _deployment(needed, system)
    guessing = guessing_of(deployment, needed, system)
    if choice is None:
        try:
            check_context(sketch_of(needed.profile), deployment.model.context_tokens, f"model {deployment.model.name}")
        except PlanError as error:
            raise BadInput(str(error)) from error
    serves = system_of(deployment, needed, system, guessing)
    kind = Kind(streaming=needed.profile.streaming, limits=limits_of(request_slos(needed, Phase.SUSTAINED)))
    schedule = _schedule(needed, length, choice)
    if output.output is not None:
        claim(output.output)
    offered = _load(needed, choice, schedule, length, kind, serves)
    try:
        done = simulate(offered, serves, seed=length.seed, gap_limits_s=gap_limits_s(needed))
    except ValueError as error:
        raise BadInput(f"this load cannot be simulated: {error}") from error
    report = _report(done, needed, serves, deployment, guessing)
    if output.output is not None:
        _save(report, done, output.output, schedule, length.seed)
    return report


def system_of(
    deployment: Deployment, requirement: Requirement, flags: SystemFlags, guessing: Guessing | None = None
) -> SimulatedSystem:
    """What serves, by the options. Raises ``BadInput`` for what cannot be."""
    from setpoint.hardware.front_end import front_end_s
    from setpoint.hardware.step_time import step_timer

    flavour, block = Flavour(flags.engine), BLOCK_TOKENS[Flavour(flags.engine)]
    guessing = guessing or Guessing()
    room = flags.kv_tokens or guessing.kv_tokens(deployment, sketch_of(requirement.profile).typical_context)
    if room < block:
        raise BadInput(
            f"--hardware {deployment.accelerator.name}: {deployment.model.name} does not fit on {deployment.devices} of them"
            f" in {deployment.weight_precision}: raise --tensor-parallel, lower --precision, or choose one with more memory"
        )
    return SimulatedSystem(
        timer=step_timer(deployment),
        kv_blocks=room // block,
        block_tokens=block,
        configuration=changed(configuration_for(deployment, requirement, flags, room // block * block), guessing.changes),
        drafting=guessing.drafting,
        context_tokens=deployment.model.context_tokens,
        replicas=flags.replicas,
        flavour=flavour,
        routing=_one_of(Routing, "routing", flags.routing),
        overheads=Overheads(receive_s=front_end_s(deployment)),
    )


def configuration_for(deployment: Deployment, requirement: Requirement, flags: SystemFlags, kv_tokens: int) -> ServingConfig:
    """The engine's defaults on this hardware with the options put in.

    vLLM's: the API server's own (``plan/vllm_command.py``; no bound of the queue). setpoint's on an accelerator: the same
    numbers, its own mode where there are limits, and its bounded queue; on this machine what ``setpoint serve`` would take.
    """
    name, memory = deployment.accelerator.name, deployment.accelerator.memory_bytes
    base = default_config(requirement)
    if flags.engine == Flavour.VLLM or name != THIS_MACHINE:
        numbers = {"max_running": default_max_running(memory, name), "token_budget": default_token_budget(memory, name)}
        base = base.model_copy(update=numbers)
    if flags.engine == Flavour.VLLM:
        base = base.model_copy(update={"mode": BatchingMode.CONTINUOUS, "max_waiting": UNBOUNDED})
    given = {
        "mode": flags.mode,
        "max_running": flags.max_running,
        "token_budget": flags.token_budget,
        "max_waiting": flags.max_waiting,
        "kv_cache_tokens": max(64, kv_tokens),
    }
    return changed(base, given)


def _deployment(requirement: Requirement, flags: SystemFlags) -> Deployment:
    from setpoint.hardware.accelerator import accelerator
    from setpoint.hardware.deployment import Deployment, check_link, check_split
    from setpoint.hardware.errors import HardwareError
    from setpoint.hardware.model_facts import model_facts, precision_name

    _one_of(Flavour, "engine", flags.engine)
    try:
        model, device = model_facts(requirement.model.source), accelerator(flags.hardware)
        precision = precision_name(flags.precision) if flags.precision else model.native_precision
        check_split(model, flags.tensor_parallel, "--tensor-parallel")
        check_link(device, flags.tensor_parallel, "--tensor-parallel")
        return Deployment(model, device, flags.tensor_parallel, flags.engine, precision, flags.kv_precision)
    except (HardwareError, ValueError) as error:
        raise BadInput(str(error)) from error


def _load(
    requirement: Requirement,
    choice: TraceChoice | None,
    schedule: Schedule,
    length: LengthFlags,
    kind: Kind,
    system: SimulatedSystem,
) -> Load:
    room = system.kv_blocks * system.block_tokens
    try:
        if choice is not None:
            return load_of_trace(
                choice.trace,
                kind,
                speed_up=choice.speed_up,
                start_s=choice.start_s,
                warmup_s=schedule.warmup_s,
                sustained_s=schedule.sustained_s,
                drain_s=schedule.drain_s,
                most_tokens=min(room, system.context_tokens or room),
            )
        return load_of_profile(
            requirement.profile,
            kind,
            seed=length.seed,
            warmup_s=schedule.warmup_s,
            sustained_s=schedule.sustained_s,
            recovery_s=schedule.recovery_s,
            burst_repeats=schedule.bursts,
            drain_s=schedule.drain_s,
            pace=_pace(requirement, system),
        )
    except ValueError as error:
        raise BadInput(f"this load cannot be simulated: {error}") from error


def _pace(requirement: Requirement, system: SimulatedSystem) -> TurnPace | None:
    """How turns of conversations follow each other: an answer is taken to last as long as in balance at this load."""
    if all(shape.sessions is None for shape in requirement.profile.shapes):
        return None
    sketch, serving = sketch_of(requirement.profile), Serving(Scheduler.VLLM, system.configuration)
    room, rate_rps = system.kv_blocks * system.block_tokens, requirement.profile.arrival.mean_rps / system.replicas
    found = at_load(system.timer, sketch, serving, room, rate_rps) or capacity(system.timer, sketch, serving, room)
    return TurnPace(system.overheads.receive_s + answer_s(system.timer, sketch, found))


def _schedule(requirement: Requirement, length: LengthFlags, choice: TraceChoice | None) -> Schedule:
    warmup_s = DEFAULT_WARMUP_S if length.warmup is None else seconds("warmup", length.warmup)
    sustained_s = None if length.duration is None else seconds("duration", length.duration, positive=True)
    if length.requests is not None and sustained_s is not None:
        raise BadInput("--requests: says how long to simulate, and so does --duration; give one of them")
    base = schedule_for(requirement, sustained_s=sustained_s)
    if choice is not None:
        refuse_requests_of_a_trace(length)
        sustained_s = choice.length_s(sustained_s, warmup_s)
    elif length.requests is not None:
        try:
            sustained_s = sustained_for(requirement.profile, length.requests, seed=length.seed, warmup_s=warmup_s)
        except ValueError as error:
            raise BadInput(f"--requests {length.requests}: {error}") from error
    return Schedule(warmup_s=warmup_s, sustained_s=sustained_s or base.sustained_s, recovery_s=base.recovery_s, drain_s=DRAIN_S)


def _report(
    done: Simulated, requirement: Requirement, system: SimulatedSystem, deployment: Deployment, guessing: Guessing
) -> Report:
    from setpoint.hardware.step_time import calibration_words
    from setpoint.loop.writing import circumstances
    from setpoint.report.choice import choose

    steady = not growing(done)
    price = _price(requirement, system, deployment)
    figures = {
        phase: phase_figures(
            done, phase, request_slos(requirement, phase), price=price, steady=steady and phase is Phase.SUSTAINED
        )
        for phase in (Phase.SUSTAINED, Phase.BURST)
        if any(each.phase is phase for each in done.load.phases)
    }
    slo = judged(done, requirement)
    configuration = system.configuration
    name = f"{configuration.mode}-{configuration.max_running}"
    candidate = Candidate(
        name=name,
        config=configuration.model_dump(mode="json"),
        predicted=Predicted(sustained=figures[Phase.SUSTAINED], burst=figures.get(Phase.BURST), source=_source(system)),
        slo=slo,
    )
    _, why = choose([candidate], requirement.objective)
    if slo.verdict is Verdict.MET and not requirement.slo.declared():
        why = "No limits were declared, and nothing failed."
    remarks = [*done.load.notes]
    if not steady:
        remarks.append("The backlog grew throughout the sustained phase: the load is above capacity.")
    remarks += calibration_words(deployment)
    remarks.append(
        f"The coefficients of step times are {_source(system)}; a step is "
        f"{error_words(system.timer.relative_error, system.timer.guess)}."
    )
    remarks += _about_guesses(guessing)
    return Report(
        kind="simulate",
        requirement=requirement.model_dump(mode="json"),
        machine=circumstances(),
        candidates=[candidate],
        chosen=name if slo.verdict is Verdict.MET else None,
        why=why,
        validity=Validity(valid=True, reasons=remarks),
        load=_facts(done, system, deployment) | _drafted(done, guessing),
    )


def _about_guesses(guessing: Guessing) -> list[str]:
    """What acceptance and the cost of drafting rest on."""
    acceptance, source = guessing.acceptance, guessing.source
    if acceptance is None:
        return []
    found = [f"Acceptance is not predicted but given: {acceptance.name}."]
    if source is not None:
        found.append(
            f"The cost of drafting with {source.of} is {source.source}; a pass is "
            f"{error_words(source.relative_error, source.guess)}."
        )
    return found


def _drafted(done: Simulated, guessing: Guessing) -> dict[str, Any]:
    """What became of the guesses, over the whole simulation."""
    source = guessing.source
    if guessing.acceptance is None:
        return {}
    return {"speculation": asdict(guessing.acceptance) | asdict(done.drafts) | ({} if source is None else asdict(source))}


def _facts(done: Simulated, system: SimulatedSystem, deployment: Deployment) -> dict[str, Any]:
    """What was simulated, beside the configuration."""
    return {
        "simulated": {
            "hardware": deployment.accelerator.name,
            "model": deployment.model.name,
            "engine": deployment.engine,
            "tensor_parallel": deployment.tensor_parallel,
            "weight_precision": deployment.weight_precision,
            "kv_precision": deployment.kv_precision,
            "replicas": system.replicas,
            "routing": str(system.routing),
            "kv_tokens": system.kv_blocks * system.block_tokens,
            "steps": done.steps,
            "busy_share": done.busy_s / (system.replicas * done.end_s) if done.end_s else 0.0,
            "relative_error": system.timer.relative_error,
            "relative_error_is_guess": system.timer.guess,
        }
    }


def _price(requirement: Requirement, system: SimulatedSystem, deployment: Deployment) -> Price | None:
    """What the whole system costs: a replica on this machine what the requirement says, all else what the catalogue does."""
    each = deployment.accelerator.price_usd_per_h
    if deployment.accelerator.name == THIS_MACHINE and requirement.price is not None:
        each = requirement.price.usd_per_hour
    return Price.model_construct(usd_per_hour=each * deployment.devices * system.replicas) if each else None


def _source(system: SimulatedSystem) -> Any:
    return system.timer.source


def _save(report: Report, done: Simulated, folder: Path, schedule: Schedule, seed: int) -> None:
    from setpoint.loop.simulation.tables import request_table
    from setpoint.loop.writing import run_info, save_run

    info = run_info(report, seed=seed, schedule=schedule, started_unix_s=0.0)
    save_run(folder, report, request_table(done, report.candidates[0].name), None, info)


def _trace_choice(trace: TraceFlags, load: LoadFlags) -> TraceChoice:
    assert trace.trace is not None
    start_s = 0.0 if trace.trace_start is None else seconds("trace-start", trace.trace_start)
    found = TraceChoice.read(trace.trace, trace.trace_format, trace.speed_up, start_s, load)
    if found.trace.times_s is None:
        raise BadInput(f"--trace {trace.trace}: {found.trace.format} has no times, and a simulation needs them")
    return found


def _refuse_what_has_no_meaning(load: LoadFlags, trace: TraceFlags, length: LengthFlags, output: OutputFlags) -> None:
    """An option that would be ignored is a mistake. Raises ``BadInput``."""
    for name, value in (("concurrency", load.concurrency), ("until", length.until), ("per-token", output.per_token or None)):
        if value is not None:
            raise BadInput(f"--{name}: belongs to setpoint measure; leave it out here")
    refuse_beside_trace(load, trace)


def _one_of(kind: Any, name: str, text: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise BadInput(f"--{name} {text}: allowed are {', '.join(kind)}") from None
