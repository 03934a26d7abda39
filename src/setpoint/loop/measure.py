"""``setpoint measure``: a load on any OpenAI-compatible server, or on our own for a requirement."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from setpoint.engine.models import resolve_model
from setpoint.loop.configs import default_config
from setpoint.loop.console import progress_line, say
from setpoint.loop.folder import claim
from setpoint.loop.interrupts import terminate_as_interrupt
from setpoint.loop.measuring import MeasuredRun, load_options, measure, plan_requests, require_room
from setpoint.loop.own_server import on_own_server
from setpoint.loop.prompts import prompts_for
from setpoint.loop.schedule import Schedule
from setpoint.loop.writing import circumstances, run_info, save_run
from setpoint.measure.event_loop import run
from setpoint.measure.options import Endpoint
from setpoint.measure.probe import Discovery, discover
from setpoint.measure.target import Target
from setpoint.policy.configuration import ServingConfig
from setpoint.record import Report, Verdict
from setpoint.report.choice import choose
from setpoint.requirement import Requirement

URL_CANDIDATE = "measured"


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """What the command line decides. output: the run folder, ``None`` for none."""

    schedule: Schedule
    output: Path | None
    seed: int = 0
    endpoint: Endpoint = Endpoint.COMPLETIONS
    max_in_flight: int | None = None
    ignore_eos: bool = True
    quiet: bool = False
    extra: dict[str, object] = field(default_factory=dict)


def measure_url(target: Target, requirement: Requirement, options: MeasureOptions) -> Report:
    """Measure somebody's server. Raises ``ProbeError`` if it does not answer as one."""
    started_unix_s = _begin(options)
    with terminate_as_interrupt():
        measured = run(_on_target(target, requirement, options, name=URL_CANDIDATE))
    return _finish(measured, requirement, options, started_unix_s, name=URL_CANDIDATE, config={})


def measure_own(
    requirement_file: Path, requirement: Requirement, config: ServingConfig | None, options: MeasureOptions
) -> Report:
    """Serve the requirement under ``config`` (``None``: the default for it) and measure that.

    Raises ``EngineFailed`` if it cannot be served and ``ServerDied`` if the server ends meanwhile.
    """
    started_unix_s = _begin(options)
    chosen = config or default_config(requirement)
    name = f"{chosen.mode}-{chosen.max_running}"
    with terminate_as_interrupt():
        resolve_model(requirement.model.source, revision=requirement.model.revision, say=say)
        if not options.quiet:
            say(f"{name}: starting the server")
        measured = run(_on_own(requirement_file, requirement, chosen, options, name=name))
    return _finish(measured, requirement, options, started_unix_s, name=name, config=chosen.model_dump(mode="json"))


def _begin(options: MeasureOptions) -> float:
    if options.output is not None:
        claim(options.output)
    return time.time()


async def _on_own(
    file: Path, requirement: Requirement, config: ServingConfig, options: MeasureOptions, *, name: str
) -> MeasuredRun:
    async def work(target: Target) -> MeasuredRun:
        return await _on_target(target, requirement, options, name=name)

    log = None if options.output is None else options.output / "logs" / f"{name}.log"
    return await on_own_server(str(file), config, work, log=log)


async def _on_target(target: Target, requirement: Requirement, options: MeasureOptions, *, name: str) -> MeasuredRun:
    found = await discover(target)
    completions = options.endpoint is Endpoint.COMPLETIONS
    prompts = prompts_for(found.target, token_ids_accepted=completions and found.is_setpoint)
    plan = plan_requests(requirement, options.schedule, seed=options.seed, make_prompt=prompts)
    if found.max_model_len is not None:
        require_room(plan, found.max_model_len)
    if not options.quiet:
        _introduce(found, plan.duration_s, len(plan.requests), exact=plan.prompt_tokens_exact)
    load = load_options(requirement, options.schedule, endpoint=options.endpoint, ignore_eos=options.ignore_eos)
    load = replace(load, max_in_flight=options.max_in_flight, extra_body=options.extra, seed=options.seed)
    with progress_line(quiet=options.quiet) as show:
        return await measure(found.target, requirement, plan, load, name=name, on_progress=show)


def _introduce(found: Discovery, duration_s: float, requests: int, *, exact: bool) -> None:
    say(f"{found.target.url} serves {found.target.model}: {requests} requests over {duration_s:.0f} s")
    if not exact:
        say("this server has no /tokenize: prompt lengths are estimates")


def _finish(
    measured: MeasuredRun,
    requirement: Requirement,
    options: MeasureOptions,
    started_unix_s: float,
    *,
    name: str,
    config: dict[str, object],
) -> Report:
    candidate = measured.candidate(name, config)
    _, why = choose([candidate], requirement.objective)
    report = Report(
        kind="measure",
        requirement=requirement.model_dump(mode="json"),
        machine=circumstances(),
        candidates=[candidate],
        chosen=name if candidate.slo.verdict is Verdict.MET else None,
        why=why,
        validity=measured.validity,
    )
    if options.output is not None:
        info = run_info(report, seed=options.seed, schedule=options.schedule, started_unix_s=started_unix_s)
        save_run(options.output, report, measured.requests, measured.steps, info)
    return report
