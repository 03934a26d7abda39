"""``setpoint tune``: which configuration to serve a requirement with, as the loop of ``tuning/`` finds it; and why."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from setpoint.engine.models import ResolvedModel, resolve_model
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.loop.console import say
from setpoint.loop.folder import claim
from setpoint.loop.forecast.several import Forecaster
from setpoint.loop.interrupts import terminate_as_interrupt
from setpoint.loop.measured import MeasuredRun
from setpoint.loop.measuring import plan_requests, require_room
from setpoint.loop.schedule import Schedule
from setpoint.loop.speculation.candidates import with_acceptance
from setpoint.loop.store.calibration import remember_quietly
from setpoint.loop.tuning.history import History
from setpoint.loop.tuning.keeping import Keeper
from setpoint.loop.tuning.lighter import LEAST_SHARE, held_rate_rps
from setpoint.loop.tuning.loop import Setup, run_loop
from setpoint.loop.tuning.prior import prior_machine
from setpoint.loop.tuning.serving import Server
from setpoint.loop.tuning.trial import Trial
from setpoint.loop.writing import circumstances, run_info, save_run
from setpoint.policy.configuration import ServingConfig
from setpoint.record import Candidate, Report, SloReport, Validity, Verdict
from setpoint.report.choice import choose
from setpoint.requirement import Requirement, load_requirement
from setpoint.workload.plan import LoadPlan
from setpoint.workload.prompts import PromptMaker, TextPrompts, TokenIdPrompts

LOADING_S = 6.0
"""Rough seconds to start, load and warm up one server, for the estimate that is printed."""


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What the command line decides. ``seed`` makes the arrivals: every candidate gets the same.

    fixed: measure every candidate once. budget_s: from the call on; no measurement begins that would not end by then. resume:
    take up what is kept in ``output`` under this seed and schedule (``tuning/going_on.py``). calibration: what to believe of
    the machine at first (``tuning/prior.py``). acceptance: in place of what the requirement says of it.
    """

    output: Path
    schedule: Schedule
    seed: int = 0
    quiet: bool = False
    fixed: bool = False
    budget_s: float | None = None
    resume: bool = False
    calibration: Path | None = None
    acceptance: str | None = None


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning came to. interrupted: by the user, so that not everything was measured."""

    report: Report
    interrupted: bool = False


def tune(requirement_file: Path, candidates: Mapping[str, ServingConfig], options: TuneOptions) -> Tuned:
    """Choose among ``candidates`` and write the run folder. Raises for a user's mistake before anything is served.

    A candidate whose server fails is noted and passed over; if nothing can be measured, the first failure is raised. An
    interrupt ends the measuring; what is complete by then is reported, and with nothing complete it is raised again.
    """
    started_unix_s, began_s = time.time(), time.monotonic()
    requirement = with_acceptance(load_requirement(requirement_file), options.acceptance)
    claim(options.output)
    keeper = Keeper(options.output, requirement, options.schedule, options.seed)
    with (
        terminate_as_interrupt(),
        Forecaster(requirement, options.schedule, processes=0 if options.fixed else _cores()) as looks,
    ):
        plan = _plan(requirement, options)
        server = Server(requirement_file, requirement, plan, options.schedule, options.output / "logs", quiet=options.quiet)

        def measured(name: str, config: ServingConfig) -> Trial:
            trial = server(name, config)
            keeper.keep(trial)
            return trial

        def time_left_s() -> float | None:
            return None if options.budget_s is None else options.budget_s - (time.monotonic() - began_s)

        history = run_loop(
            Setup(
                requirement=requirement,
                space=candidates,
                looks=looks,
                measure=measured,
                prior=prior_machine(requirement, options.calibration, say),
                seed=options.seed,
                kept=_kept(keeper, candidates, options),
                fixed=options.fixed,
                trial_s=plan.duration_s + options.schedule.usual_drain_s + LOADING_S,
                time_left_s=time_left_s,
                say=say,
            )
        )
        if history.interrupted:
            say(f"stopped; {len(history.trials)} measurements are complete, and --resume goes on from them")
        report = _report(requirement, candidates, history, options)
        if report.chosen is None and not (history.interrupted or options.fixed):
            report = report.model_copy(update={"why": f"{report.why} {_lighter(requirement, history, options)}".rstrip()})
        _save(report, history, options, started_unix_s)
    return Tuned(report, history.interrupted)


def _lighter(requirement: Requirement, history: History, options: TuneOptions) -> str:
    """At what load the best would hold, in words; nothing where it was not shown to miss."""
    best, machine = history.best(), history.machine
    if best is None or machine is None or best.slo.verdict is not Verdict.MISSED:
        return ""
    config = history.latest[best.name][1].config
    try:
        rate_rps = held_rate_rps(requirement, config, machine, options.schedule, seed=options.seed)
    except KeyboardInterrupt:  # What was measured is worth more than this.
        return ""
    if rate_rps is None:
        least_rps = LEAST_SHARE * requirement.profile.arrival.mean_rps
        return f"By the forecast {best.name} would not hold under a lighter load either, down to {least_rps:.2g} requests/s."
    return f"By the forecast {best.name} would hold at up to {rate_rps:.2g} requests/s."


def _plan(requirement: Requirement, options: TuneOptions) -> LoadPlan:
    say(f"reading the model {requirement.model.source}")
    model = resolve_model(requirement.model.source, revision=requirement.model.revision, say=say)
    if requirement.speculation is not None and requirement.speculation.acceptance is None:
        say(
            "speculation is not tried: give its --acceptance, such as profile.json#WORK, or put it into the requirement;"
            " setpoint profile-speculation --output profile.json measures it"
        )
    prompts = _prompts(model, text=requirement.profile.has_conversations)
    plan = plan_requests(requirement, options.schedule, seed=options.seed, make_prompt=prompts)
    require_room(plan, model.context_tokens)
    say(f"each measurement: the same {len(plan.requests)} requests over {plan.duration_s:.0f} s")
    return plan


def _prompts(model: ResolvedModel, *, text: bool = False) -> PromptMaker:
    """Token ids; ``text`` where turns follow each other, counted with the special tokens that our server adds to a text."""
    tokenizer = ModelTokenizer(model.folder)
    if text:
        return TextPrompts(tokenizer.encode)
    return TokenIdPrompts(lambda words: tokenizer.encode(words, add_special_tokens=False))


def _kept(keeper: Keeper, candidates: Mapping[str, ServingConfig], options: TuneOptions) -> list[Trial]:
    if not options.resume:
        keeper.forget()
        return []
    found = keeper.kept(candidates, say)
    if found:
        load = f"seed {options.seed}, sustained phases of {options.schedule.sustained_s:.0f} s"
        say(f"{len(found)} measurements are taken up from {keeper.folder}: {load}")
    else:
        say(f"nothing to resume in {keeper.folder}")
    return found


def _cores() -> int:
    """No server runs while forecasts are made: all cores are free."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _report(
    requirement: Requirement, candidates: Mapping[str, ServingConfig], history: History, options: TuneOptions
) -> Report:
    entries = history.entries()
    if options.fixed:
        known = {each.name: each for each in entries}
        entries = [known.get(name) or _not_measured(name, config) for name, config in candidates.items()]
    chosen, why = choose(entries, requirement.objective)
    return Report(
        kind="tune",
        requirement=requirement.model_dump(mode="json"),
        machine=circumstances(),
        candidates=entries,
        chosen=chosen,
        why=why,
        validity=_validity(candidates, history, options),
        tuning=history.as_dict(_facts(options)),
    )


def _facts(options: TuneOptions) -> dict[str, Any]:
    return {
        "mode": "fixed" if options.fixed else "loop",
        "budget_s": options.budget_s,
        "calibration": None if options.calibration is None else str(options.calibration),
    }


def _not_measured(name: str, config: ServingConfig) -> Candidate:
    return Candidate(name=name, config=config.model_dump(mode="json"), slo=SloReport(verdict=Verdict.INCONCLUSIVE))


def _validity(candidates: Mapping[str, ServingConfig], history: History, options: TuneOptions) -> Validity:
    """The run stands if any measurement may be believed; what is wrong with the others is remarked."""
    runs: dict[str, MeasuredRun] = {name: trial.run for name, (_, trial) in history.latest.items()}
    reasons = [f"{name}: {reason}" for name, each in runs.items() for reason in each.validity.reasons]
    reasons += [f"{name}: {error}" for name, error in history.failures().items()]
    if history.interrupted:
        left = [name for name in candidates if name not in history.attempts] if options.fixed else []
        words = f" before these were measured: {', '.join(left)}" if left else " before the loop had ended"
        reasons.append(f"Stopped by the user{words}.")
    return Validity(valid=any(each.validity.valid for each in runs.values()), reasons=reasons)


def _save(report: Report, history: History, options: TuneOptions, started_unix_s: float) -> None:
    """The run folder: of a configuration that was measured several times, the last."""
    runs = [trial.run for _, trial in history.latest.values()]
    steps, servers, decisions = (
        [table for each in runs if (table := getattr(each, name)) is not None]
        for name in ("steps", "server_table", "decisions")
    )
    save_run(
        options.output,
        report,
        pa.concat_tables([each.requests for each in runs]),
        pa.concat_tables(steps) if steps else None,
        run_info(report, seed=options.seed, schedule=options.schedule, started_unix_s=started_unix_s),
        server=pa.concat_tables(servers) if servers else None,
        decisions=pa.concat_tables(decisions) if decisions else None,
    )
    remember_quietly(options.output, say)
