"""``setpoint tune``: serve every candidate, measure it, choose the one to run, and write down why."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from setpoint.engine.models import ResolvedModel, resolve_model
from setpoint.engine.request import EngineFailed
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.loop.console import progress_line, say
from setpoint.loop.errors import ServerDied
from setpoint.loop.folder import claim
from setpoint.loop.interrupts import terminate_as_interrupt
from setpoint.loop.measuring import MeasuredRun, load_options, measure, plan_requests, require_room
from setpoint.loop.own_server import on_own_server
from setpoint.loop.schedule import Schedule
from setpoint.loop.store.calibration import remember_quietly
from setpoint.loop.writing import circumstances, run_info, save_run
from setpoint.measure.event_loop import run
from setpoint.measure.probe import ProbeError, discover
from setpoint.measure.target import Target
from setpoint.policy.configuration import ServingConfig
from setpoint.record import Candidate, Report, SloReport, Validity, Verdict
from setpoint.report.choice import choose
from setpoint.requirement import Requirement, load_requirement
from setpoint.workload.plan import LoadPlan
from setpoint.workload.prompts import TokenIdPrompts

LOADING_S = 6.0
"""Rough seconds to start, load and warm up one server, for the estimate that is printed."""


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What the command line decides. ``seed`` makes the arrivals: every candidate gets the same."""

    output: Path
    schedule: Schedule
    seed: int = 0
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning came to. interrupted: by the user, so that not every candidate was measured."""

    report: Report
    interrupted: bool = False


@dataclass(slots=True)
class _Progress:
    """What was measured so far, and why what failed did."""

    runs: dict[str, MeasuredRun] = field(default_factory=dict)
    failures: dict[str, EngineFailed | ServerDied | ProbeError] = field(default_factory=dict)
    interrupted: bool = False


def tune(requirement_file: Path, candidates: Mapping[str, ServingConfig], options: TuneOptions) -> Tuned:
    """Measure ``candidates`` and write the run folder. Raises for a user's mistake before anything is served.

    A candidate whose server fails is noted and passed over; if every one fails, the first failure is raised. An interrupt
    ends the measuring; what is complete by then is reported, and with nothing complete it is raised again.
    """
    started_unix_s = time.time()
    requirement = load_requirement(requirement_file)
    claim(options.output)
    with terminate_as_interrupt():
        plan = _plan(requirement, options)
        progress = _measure_all(requirement_file, requirement, candidates, plan, options)
    report = _report(requirement, candidates, progress)
    requests = pa.concat_tables([each.requests for each in progress.runs.values()])
    steps = [each.steps for each in progress.runs.values() if each.steps is not None]
    info = run_info(report, seed=options.seed, schedule=options.schedule, started_unix_s=started_unix_s)
    tables = [each.server_table for each in progress.runs.values() if each.server_table is not None]
    decisions = [each.decisions for each in progress.runs.values() if each.decisions is not None]
    save_run(
        options.output,
        report,
        requests,
        pa.concat_tables(steps) if steps else None,
        info,
        server=pa.concat_tables(tables) if tables else None,
        decisions=pa.concat_tables(decisions) if decisions else None,
    )
    remember_quietly(options.output, say)
    return Tuned(report, progress.interrupted)


def _plan(requirement: Requirement, options: TuneOptions) -> LoadPlan:
    say(f"reading the model {requirement.model.source}")
    model = resolve_model(requirement.model.source, revision=requirement.model.revision, say=say)
    plan = plan_requests(requirement, options.schedule, seed=options.seed, make_prompt=_prompts(model))
    require_room(plan, model.context_tokens)
    return plan


def _prompts(model: ResolvedModel) -> TokenIdPrompts:
    tokenizer = ModelTokenizer(model.folder)
    return TokenIdPrompts(lambda text: tokenizer.encode(text, add_special_tokens=False))


def _measure_all(
    requirement_file: Path,
    requirement: Requirement,
    candidates: Mapping[str, ServingConfig],
    plan: LoadPlan,
    options: TuneOptions,
) -> _Progress:
    progress = _Progress()
    total_min = len(candidates) * (plan.duration_s + LOADING_S) / 60
    say(
        f"{len(candidates)} configurations, the same {len(plan.requests)} requests over {plan.duration_s:.0f} s for each:"
        f" about {total_min:.1f} min"
    )
    for number, (name, config) in enumerate(candidates.items(), 1):
        say(f"[{number}/{len(candidates)}] {name}: starting the server")
        try:
            progress.runs[name] = run(_measure_one(requirement_file, requirement, name, config, plan, options))
        except (EngineFailed, ServerDied, ProbeError) as error:
            say(f"{name} failed: {error}")
            progress.failures[name] = error
        except KeyboardInterrupt:
            if not progress.runs:
                raise
            say(f"stopped during {name}; {len(progress.runs)} of {len(candidates)} configurations are complete")
            progress.interrupted = True
            break
    if not progress.runs:
        raise next(iter(progress.failures.values()))
    return progress


async def _measure_one(
    requirement_file: Path,
    requirement: Requirement,
    name: str,
    config: ServingConfig,
    plan: LoadPlan,
    options: TuneOptions,
) -> MeasuredRun:
    async def work(target: Target) -> MeasuredRun:
        found = await discover(target)
        load = load_options(requirement, options.schedule)
        with progress_line(name, quiet=options.quiet) as show:
            return await measure(found.target, requirement, plan, load, name=name, on_progress=show)

    return await on_own_server(str(requirement_file), config, work, log=options.output / "logs" / f"{name}.log")


def _report(requirement: Requirement, candidates: Mapping[str, ServingConfig], progress: _Progress) -> Report:
    entries = [_entry(name, config, progress.runs.get(name)) for name, config in candidates.items()]
    chosen, why = choose(entries, requirement.objective)
    return Report(
        kind="tune",
        requirement=requirement.model_dump(mode="json"),
        machine=circumstances(),
        candidates=entries,
        chosen=chosen,
        why=why,
        validity=_validity(candidates, progress),
    )


def _entry(name: str, config: ServingConfig, measured: MeasuredRun | None) -> Candidate:
    """A candidate that was not measured, or whose measurement may not be believed, is inconclusive whatever it showed."""
    described = config.model_dump(mode="json")
    if measured is None:
        return Candidate(name=name, config=described, slo=SloReport(verdict=Verdict.INCONCLUSIVE))
    entry = measured.candidate(name, described)
    if not measured.validity.valid:
        entry = entry.model_copy(update={"slo": entry.slo.model_copy(update={"verdict": Verdict.INCONCLUSIVE})})
    return entry


def _validity(candidates: Mapping[str, ServingConfig], progress: _Progress) -> Validity:
    """The run stands if any measurement may be believed; what is wrong with the others is remarked."""
    reasons = [f"{name}: {reason}" for name, each in progress.runs.items() for reason in each.validity.reasons]
    reasons += [f"{name}: {error}" for name, error in progress.failures.items()]
    if progress.interrupted:
        left = [name for name in candidates if name not in progress.runs and name not in progress.failures]
        reasons.append(f"Stopped by the user before these were measured: {', '.join(left)}.")
    return Validity(valid=any(each.validity.valid for each in progress.runs.values()), reasons=reasons)
