"""``setpoint measure``: a load on any OpenAI-compatible server, or on our own for a requirement."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from setpoint.loop.configs import default_config
from setpoint.loop.console import console, say
from setpoint.loop.measuring import MeasuredRun, load_options, measure, plan_requests
from setpoint.loop.own_server import own_server
from setpoint.loop.prompts import prompts_for
from setpoint.loop.schedule import Schedule
from setpoint.loop.writing import command_line, save_run
from setpoint.measure.event_loop import run
from setpoint.measure.options import Endpoint
from setpoint.measure.probe import Discovery, discover
from setpoint.measure.progress import ProgressLine
from setpoint.measure.target import Target
from setpoint.policy.configuration import ServingConfig
from setpoint.record import Report, Verdict
from setpoint.report.files import machine_facts
from setpoint.requirement import Requirement

URL_CANDIDATE = "measured"


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """What the command line decides."""

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
    measured = run(_on_target(target, requirement, options, name=URL_CANDIDATE))
    return _finish(measured, requirement, options, name=URL_CANDIDATE, config={})


def measure_own(
    requirement_file: Path, requirement: Requirement, config: ServingConfig | None, options: MeasureOptions
) -> Report:
    """Serve the requirement under ``config`` (``None``: the default for it) and measure that."""
    chosen = config or default_config(requirement)
    name = f"{chosen.mode}-{chosen.max_running}"
    measured = run(_on_own(requirement_file, requirement, chosen, options, name=name))
    return _finish(measured, requirement, options, name=name, config=chosen.model_dump(mode="json"))


async def _on_own(
    file: Path, requirement: Requirement, config: ServingConfig, options: MeasureOptions, *, name: str
) -> MeasuredRun:
    log = (options.output or Path(".")) / "logs" / "server.log"
    async with own_server(str(file), config, log=log) as target:
        return await _on_target(target, requirement, options, name=name)


async def _on_target(
    target: Target, requirement: Requirement, options: MeasureOptions, *, name: str
) -> MeasuredRun:
    found = await discover(target)
    completions = options.endpoint is Endpoint.COMPLETIONS
    prompts = prompts_for(found.target, token_ids_accepted=completions and found.is_setpoint)
    plan = plan_requests(requirement, options.schedule, seed=options.seed, make_prompt=prompts)
    _introduce(found, plan.duration_s, len(plan.requests), exact=plan.prompt_tokens_exact)
    load = load_options(requirement, options.schedule, endpoint=options.endpoint, ignore_eos=options.ignore_eos)
    load = replace(load, max_in_flight=options.max_in_flight, extra_body=options.extra, seed=options.seed)
    progress = ProgressLine(console, quiet=options.quiet)
    return await measure(found.target, requirement, plan, load, name=name, on_progress=progress)


def _introduce(found: Discovery, duration_s: float, requests: int, *, exact: bool) -> None:
    say(f"{found.target.url} serves {found.target.model}: {requests} requests over {duration_s:.0f} s")
    if not exact:
        say("this server has no /tokenize: prompt lengths are estimates")


def _finish(
    measured: MeasuredRun, requirement: Requirement, options: MeasureOptions, *, name: str, config: dict[str, object]
) -> Report:
    candidate = measured.candidate(name, config)
    met = candidate.slo.verdict is Verdict.MET
    checks = len(candidate.slo.checks)
    why = f"{sum(check.verdict is Verdict.MET for check in candidate.slo.checks)} of {checks} checks are met."
    report = Report(
        kind="measure",
        requirement=requirement.model_dump(mode="json"),
        machine=machine_facts(),
        candidates=[candidate],
        chosen=name if met else None,
        why=why,
        validity=measured.validity,
    )
    if options.output is not None:
        info = {"command": command_line(), "seed": options.seed, "ended_unix_s": time.time()}
        save_run(options.output, report, measured.requests, measured.steps, info)
    return report
