"""``setpoint measure``: a load on any OpenAI-compatible server, or on our own for a requirement."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from setpoint.loop.console import say
from setpoint.loop.errors import BadInput
from setpoint.loop.folder import claim
from setpoint.loop.interrupts import terminate_as_interrupt
from setpoint.loop.on_target import OnTarget, measure_target
from setpoint.loop.schedule import Schedule
from setpoint.measure.event_loop import run
from setpoint.measure.options import Endpoint
from setpoint.measure.result import Ended
from setpoint.measure.target import Target
from setpoint.record import Candidate, Report, Verdict
from setpoint.requirement import ModelSource, Requirement

if TYPE_CHECKING:
    import pyarrow as pa

    from setpoint.loop.goal import Goal
    from setpoint.loop.knee.run import KneeRun
    from setpoint.loop.traces import TraceChoice
    from setpoint.measure.capacity import Capacity
    from setpoint.policy.configuration import ServingConfig
    from setpoint.report.assertion import Assertion

MAX_NAME_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """What the command line decides.

    output: the run folder, ``None`` for none. extra: more fields of every request. requests: so many in the sustained
    phase, instead of its length. concurrency: a closed loop. workers: how many processes send; ``None`` leaves it to the
    load. declared: the requirement as it is without limits that only ``assertions`` state (``None``: as it is).
    described: whether the requirement was made of options alone. goal: when enough is known to stop. The others are as
    the command line explains them.
    """

    schedule: Schedule
    output: Path | None
    seed: int = 0
    endpoint: Endpoint = Endpoint.COMPLETIONS
    max_in_flight: int | None = None
    ignore_eos: bool = True
    quiet: bool = False
    extra: dict[str, object] = field(default_factory=dict)
    max_completion_tokens: bool = False
    retries: int = 0
    concurrency: int | None = None
    requests: int | None = None
    trace: TraceChoice | None = None
    workers: int | None = 1
    assertions: Sequence[Assertion] = ()
    declared: Requirement | None = None
    described: bool = False
    goal: Goal | None = None
    tokenizer: str | None = None
    recalibrate: bool = False
    power_url: str | None = None
    metrics_urls: tuple[str, ...] = ()
    find_knee: bool = False
    per_token: bool = False


def measure_url(target: Target, requirement: Requirement, options: MeasureOptions) -> Report:
    """Measure somebody's server. Raises ``ProbeError`` if it does not answer as one."""
    started_unix_s = _begin(options)
    capacity = _calibrated(options)
    if options.find_knee:
        return _knee_of_url(target, requirement, options, started_unix_s, capacity)
    with terminate_as_interrupt():
        done = run(measure_target(target, requirement, options, capacity=capacity))
    if options.described:
        requirement = _named(requirement, done.name, target.url)
    return _finish(done, requirement, options, started_unix_s, config={})


def measure_own(
    requirement_file: Path, requirement: Requirement, config: ServingConfig | None, options: MeasureOptions
) -> Report:
    """Serve the requirement under ``config`` (``None``: the default for it) and measure that.

    Raises ``EngineFailed`` if it cannot be served and ``ServerDied`` if the server ends meanwhile.
    """
    from setpoint.engine.models import resolve_model
    from setpoint.loop.configs import default_config

    started_unix_s = _begin(options)
    capacity = _calibrated(options)
    chosen = config or default_config(requirement)
    name = f"{chosen.mode}-{chosen.max_running}"
    if options.find_knee:
        raise BadInput("--find-knee: belongs to measuring a URL; serve the requirement first, with setpoint serve")
    with terminate_as_interrupt():
        resolve_model(requirement.model.source, revision=requirement.model.revision, say=say)
        if not options.quiet:
            say(f"{name}: starting the server")
        done = run(_on_own(requirement_file, requirement, chosen, options, name=name, capacity=capacity))
    report = _finish(done, requirement, options, started_unix_s, config=chosen.model_dump(mode="json"))
    if options.output is not None:
        from setpoint.loop.store.calibration import remember_quietly

        remember_quietly(options.output, say)
    return report


def _knee_of_url(
    target: Target, requirement: Requirement, options: MeasureOptions, started_unix_s: float, capacity: Capacity | None
) -> Report:
    from setpoint.loop.knee_target import search_target

    with terminate_as_interrupt():
        search, model = run(search_target(target, requirement, options, capacity=capacity))
    if options.described:
        requirement = _named(requirement, model, target.url)
    return _finish_knee(replace(search, requirement=requirement), options, started_unix_s)


def _finish_knee(search: KneeRun, options: MeasureOptions, started_unix_s: float) -> Report:
    from setpoint.loop.writing import circumstances

    report = search.report(circumstances(started_unix_s)).model_copy(update={"load": load_facts(options, 1)})
    _save(report, options, started_unix_s, search.requests, search.steps, search.server_table)
    return report


def _begin(options: MeasureOptions) -> float:
    if options.output is not None:
        claim(options.output)
    return time.time()


def _calibrated(options: MeasureOptions) -> Capacity | None:
    """What a client process is good to on this machine, if that is to be found anew."""
    if not options.recalibrate:
        return None
    from setpoint.measure.calibration import client_capacity

    say("calibrating the load generator against a server whose every answer is known")
    found = client_capacity(recalibrate=True, say=say)
    say(found.words())
    return found


async def _on_own(
    file: Path,
    requirement: Requirement,
    config: ServingConfig,
    options: MeasureOptions,
    *,
    name: str,
    capacity: Capacity | None,
) -> OnTarget:
    from setpoint.loop.own_server import on_own_server

    async def work(target: Target) -> OnTarget:
        return await measure_target(target, requirement, options, name=name, capacity=capacity)

    log = None if options.output is None else options.output / "logs" / f"{name}.log"
    return await on_own_server(str(file), config, work, log=log, keep=True)


def _named(requirement: Requirement, model: str, url: str) -> Requirement:
    """What was described by options alone is called after the model that was found there."""
    changes: dict[str, Any] = {"model": ModelSource(source=model), "description": f"Measured at {url}."}
    if requirement.name == "measurement":
        changes["name"] = model[:MAX_NAME_CHARACTERS]
    return requirement.model_copy(update=changes)


def load_facts(options: MeasureOptions, workers: int) -> dict[str, Any] | None:
    """As ``record.Report.load`` has it; ``None`` for the open loop of the requirement, sent by one process."""
    facts: dict[str, Any] = options.trace.facts() if options.trace is not None else {}
    for name in ("concurrency", "max_in_flight", "requests"):
        if getattr(options, name) is not None:
            facts[name] = getattr(options, name)
    if options.retries:
        facts["retries"] = options.retries
    if workers > 1:
        facts["workers"] = workers
    if options.find_knee:
        facts["find_knee"] = True
    if options.goal is not None:
        facts["until"] = options.goal.words()
    return facts or None


def _finish(
    done: OnTarget,
    requirement: Requirement,
    options: MeasureOptions,
    started_unix_s: float,
    *,
    config: dict[str, Any],
) -> Report:
    from setpoint.loop.writing import circumstances

    measured = done.measured
    candidate = measured.candidate(done.name, config)
    load = load_facts(options, done.workers)
    if measured.ended is Ended.INTERRUPTED:
        load = (load or {}) | {"interrupted": True}
    report = Report(
        kind="measure",
        requirement=requirement.model_dump(mode="json"),
        machine=circumstances(started_unix_s),
        candidates=[candidate],
        chosen=done.name if candidate.slo.verdict is Verdict.MET else None,
        why=_why(candidate, requirement),
        validity=measured.validity,
        load=load,
    )
    tables = (measured.requests, measured.steps, measured.server_table)
    _save(report, options, started_unix_s, *tables, decisions=measured.decisions)
    return report


def _save(
    report: Report,
    options: MeasureOptions,
    started_unix_s: float,
    requests: pa.Table,
    steps: pa.Table | None,
    server: pa.Table | None,
    *,
    decisions: pa.Table | None = None,
) -> None:
    from setpoint.loop.writing import run_info, save_run

    if options.output is not None:
        info = run_info(report, seed=options.seed, schedule=options.schedule, started_unix_s=started_unix_s)
        extra = {"server": server, "decisions": decisions}
        save_run(options.output, report, requests, steps, info, **extra, per_token=options.per_token)


def _why(candidate: Candidate, requirement: Requirement) -> str:
    from setpoint.report.choice import choose

    _, why = choose([candidate], requirement.objective)
    if any(check.asserted is not None for check in candidate.slo.checks) or requirement.slo.declared():
        return why
    if candidate.slo.verdict is Verdict.MET:
        return "No limits were declared, and nothing failed."
    return why
