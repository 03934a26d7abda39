"""``setpoint tune``: serve every candidate, measure it, choose the one to run, and write down why."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from setpoint.engine.models import resolve_model
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.loop.console import console, say
from setpoint.loop.measuring import MeasuredRun, load_options, measure, plan_requests
from setpoint.loop.own_server import own_server
from setpoint.loop.schedule import Schedule
from setpoint.loop.writing import command_line, save_run
from setpoint.measure.event_loop import run
from setpoint.measure.probe import discover
from setpoint.measure.progress import ProgressLine
from setpoint.policy.configuration import ServingConfig
from setpoint.record import Report, Validity
from setpoint.report.choice import choose
from setpoint.report.files import machine_facts
from setpoint.requirement import Requirement, load_requirement
from setpoint.workload.plan import LoadPlan
from setpoint.workload.prompts import TokenIdPrompts


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What the command line decides. ``seed`` makes the arrivals: every candidate gets the same."""

    output: Path
    schedule: Schedule
    seed: int = 0
    quiet: bool = False


def tune(requirement_file: Path, candidates: Mapping[str, ServingConfig], options: TuneOptions) -> Report:
    """Measure ``candidates`` and write the run folder. Raises for a user's mistake before anything is served."""
    started_s = time.monotonic()
    requirement = load_requirement(requirement_file)
    plan = _plan(requirement, options)
    runs: dict[str, MeasuredRun] = {}
    for number, (name, config) in enumerate(candidates.items(), 1):
        say(f"[{number}/{len(candidates)}] {name}: serving and measuring for {plan.duration_s:.0f} s")
        runs[name] = run(_measure_one(requirement_file, requirement, name, config, plan, options))
    report = _report(requirement, candidates, runs)
    requests = pa.concat_tables([each.requests for each in runs.values()])
    steps = [each.steps for each in runs.values() if each.steps is not None]
    info = {"command": command_line(), "seed": options.seed, "duration_s": time.monotonic() - started_s}
    save_run(options.output, report, requests, pa.concat_tables(steps) if steps else None, info)
    return report


def _plan(requirement: Requirement, options: TuneOptions) -> LoadPlan:
    model = resolve_model(requirement.model.source, revision=requirement.model.revision, say=say)
    tokenizer = ModelTokenizer(model.folder)
    prompts = TokenIdPrompts(lambda text: tokenizer.encode(text, add_special_tokens=False))
    return plan_requests(requirement, options.schedule, seed=options.seed, make_prompt=prompts)


async def _measure_one(
    requirement_file: Path,
    requirement: Requirement,
    name: str,
    config: ServingConfig,
    plan: LoadPlan,
    options: TuneOptions,
) -> MeasuredRun:
    log = options.output / "logs" / f"{name}.log"
    async with own_server(str(requirement_file), config, log=log) as target:
        found = await discover(target)
        progress = ProgressLine(console, label=name, quiet=options.quiet)
        load = load_options(requirement, options.schedule)
        return await measure(found.target, requirement, plan, load, name=name, on_progress=progress)


def _report(
    requirement: Requirement, candidates: Mapping[str, ServingConfig], runs: Mapping[str, MeasuredRun]
) -> Report:
    entries = [runs[name].candidate(name, config.model_dump(mode="json")) for name, config in candidates.items()]
    chosen, why = choose(entries, requirement.objective)
    judged = runs[chosen].validity if chosen else _joint_validity(runs)
    return Report(
        kind="tune",
        requirement=requirement.model_dump(mode="json"),
        machine=machine_facts(),
        candidates=entries,
        chosen=chosen,
        why=why,
        validity=judged,
    )


def _joint_validity(runs: Mapping[str, MeasuredRun]) -> Validity:
    """Without a chosen candidate the run stands if any measurement may be believed."""
    reasons = [f"{name}: {reason}" for name, each in runs.items() for reason in each.validity.reasons]
    return Validity(valid=any(each.validity.valid for each in runs.values()), reasons=reasons)
