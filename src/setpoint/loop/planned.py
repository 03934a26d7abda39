"""``setpoint plan`` from its options to its files: names read, simulations spread over processes, the result written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from setpoint.hardware.prices import parse_prices
from setpoint.hardware.step_time import calibration_words
from setpoint.loop.asserts import parse_assertions, with_asserted_limits
from setpoint.loop.closer_look import looked_at
from setpoint.loop.console import console, say
from setpoint.loop.describe import described_requirement
from setpoint.loop.errors import BadInput
from setpoint.loop.flags import LoadFlags
from setpoint.loop.folder import claim
from setpoint.loop.speculation.candidates import OFF, speculation_wished
from setpoint.plan.asked import Wishes, asked_of
from setpoint.plan.economy import Goal
from setpoint.plan.improve import Improvement, improvement_document, make_improvement, shape_of
from setpoint.plan.planner import Plan, make_plan
from setpoint.plan.processes import ProcessRunner
from setpoint.plan.report import EXIT_CODES, exports_of, plan_document, plan_json
from setpoint.plan.search import Progress
from setpoint.plan.simulated_trial import TrialOf
from setpoint.plan.space import PARALLEL
from setpoint.plan.topology import Scheduler
from setpoint.plan.vllm_command import parse_vllm_command
from setpoint.report.files import EXPORTS_FOLDER, REPORT_FILE, RUN_FILE
from setpoint.report.format import printable
from setpoint.requirement import ModelSource, Requirement, Speculation, UnitError, load_requirement
from setpoint.requirement.units import parse_fraction

MOST_PARALLEL = 64


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What was typed, not yet read; lists may hold several names each, separated by commas."""

    load: LoadFlags = field(default_factory=LoadFlags)
    model: str | None = None
    assertions: Sequence[str] = ()
    hardware: Sequence[str] = ()
    prices: Sequence[str] = ()
    max_gpus: int | None = None
    quantization: Sequence[str] = ()
    kv_cache: Sequence[str] = ()
    tensor_parallel: Sequence[str] = ()
    schedulers: Sequence[str] = ()
    speculation: Sequence[str] = ()
    draft_model: str | None = None
    acceptance: str | None = None
    objective: str | None = None
    load_uncertainty: str | None = None
    confidence: str = "90%"
    improve: str | None = None
    seed: int = 0
    processes: int | None = None
    output: Path | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """A plan with its document as data and as text."""

    plan: Plan
    document: dict[str, Any]
    json_text: str
    improvement: Improvement | None = None

    @property
    def exit_code(self) -> int:
        """0 sure, 1 infeasible, 3 inside its error bar or on an error that is a guess."""
        return EXIT_CODES[self.plan.standing]


def plan_requirement(path: Path | None, options: PlanOptions) -> Done:
    """Make the plan and write its folder, if one is wanted. Without a file the options say what is needed.

    Raises ``BadInput``, ``PlanError``, ``HardwareError`` and ``RequirementError`` for a user's mistakes.
    """
    if options.load.concurrency is not None:
        raise BadInput("--concurrency: belongs to setpoint measure; a plan is for arrivals that wait for nobody, give --rate")
    started_unix_s = time.time()
    command = None if options.improve is None else parse_vllm_command(options.improve)
    requirement = _needed(path, options, None if command is None else command.model)
    asked = asked_of(requirement, wishes_of(options, requirement.speculation))
    if command is not None:
        shape_of(asked, command)
    if options.output is not None:
        claim(options.output)
    with ProcessRunner(TrialOf(requirement, looked_at), options.processes) as runner, _progress() as progress:
        improvement = None if command is None else make_improvement(asked, command, runner, progress)
        plan = make_plan(asked, runner, progress)
    for sentence in dict.fromkeys(
        words for ranked in plan.ranked for words in calibration_words(ranked.topology.pool.shape.deployment)
    ):
        say(sentence)
    document = plan_document(plan)
    if improvement is not None:
        document["improvement"] = improvement_document(improvement, asked.load_rps)
    done = Done(plan, document, plan_json(document), improvement)
    if options.output is not None:
        write(done, options.output, started_unix_s)
    return done


def _needed(path: Path | None, options: PlanOptions, command_model: str | None) -> Requirement:
    """The requirement of the file, or of none, with the options put in; the model of a command to improve wins."""
    base = load_requirement(path) if path is not None else None
    model = command_model or options.model
    if base is None and model is None:
        raise BadInput("no model: name a REQUIREMENT.yaml, a model with --model, or a command with --improve")
    needed = described_requirement(base, options.load)
    if base is None:
        needed = needed.model_copy(update={"name": "plan"})
    if model is not None:
        needed = needed.model_copy(update={"model": ModelSource(source=model)})
    return with_asserted_limits(needed, parse_assertions(options.assertions)) if options.assertions else needed


def render(done: Done) -> None:
    """The plan on standard output."""
    from rich.console import Console

    from setpoint.plan.terminal import render_plan

    console = Console(highlight=False)
    if done.improvement is not None:
        for sentence in done.document["improvement"]["sentences"]:
            console.print(f"- {printable(sentence)}", markup=False)
        console.print()
    render_plan(done.plan, console)


def write(done: Done, folder: Path, started_unix_s: float) -> None:
    """``plan.json``, ``plan.html``, ``run.json``, ``report.json`` and a folder of exports (old ones are replaced).

    Then the plan is put into the index of runs.
    """
    from setpoint.loop.store.register import register_quietly
    from setpoint.loop.writing import plan_info
    from setpoint.plan.page import render_page

    (folder / EXPORTS_FOLDER).mkdir(exist_ok=True)
    for name, text in exports_of(done.plan).items():
        (folder / EXPORTS_FOLDER / name).write_text(text, encoding="utf-8")
    (folder / "plan.html").write_text(render_page(done.plan, done.document), encoding="utf-8")
    (folder / "plan.json").write_text(done.json_text, encoding="utf-8")
    from setpoint.plan.report import report_of

    report = report_of(done.plan)
    (folder / RUN_FILE).write_text(json.dumps(plan_info(report, done.plan.asked.seed, started_unix_s), indent=2) + "\n")
    (folder / REPORT_FILE).write_text(report.to_json() + "\n", encoding="utf-8")
    register_quietly(folder, say)


def wishes_of(options: PlanOptions, allowed: Speculation | None = None) -> Wishes:
    """The options read; ``allowed``: the requirement's speculation. Raises ``BadInput`` naming the option."""
    return Wishes(
        speculation=speculation_wished(options, allowed),
        no_speculation=OFF in _names(options.speculation),
        hardware=_names(options.hardware),
        prices=parse_prices(options.prices),
        quantization=_names(options.quantization),
        kv_cache=_names(options.kv_cache),
        max_gpus=options.max_gpus,
        goal=_goal(options.objective),
        load_error=None if options.load_uncertainty is None else _fraction("load-uncertainty", options.load_uncertainty),
        confidence=_fraction("confidence", options.confidence),
        schedulers=_schedulers(_names(options.schedulers)),
        parallel=_parallel(_names(options.tensor_parallel)),
        seed=options.seed,
    )


def _names(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for text in texts for name in text.split(",") if name.strip()))


def _goal(text: str | None) -> Goal | None:
    if text is None:
        return None
    try:
        return Goal(text)
    except ValueError:
        raise BadInput(f"--objective {text}: allowed: {', '.join(Goal)}") from None


def _schedulers(names: Sequence[str]) -> tuple[Scheduler, ...]:
    unknown = [name for name in names if name not in tuple(Scheduler)]
    if unknown:
        raise BadInput(f"--scheduler {unknown[0]}: allowed: {', '.join(Scheduler)}")
    return tuple(Scheduler(name) for name in names) or tuple(Scheduler)


def _parallel(names: Sequence[str]) -> tuple[int, ...]:
    wrong = [name for name in names if not name.isdecimal() or not 1 <= int(name) <= MOST_PARALLEL]
    if wrong:
        raise BadInput(f"--tensor-parallel {wrong[0]}: allowed: whole numbers from 1 to {MOST_PARALLEL}")
    return tuple(int(name) for name in names) or PARALLEL


def _fraction(name: str, text: str) -> float:
    try:
        value = parse_fraction(text)
    except UnitError as error:
        raise BadInput(f"--{name} {text}: allowed: {error}") from None
    if not 0 <= value < 1:
        raise BadInput(f"--{name} {text}: allowed: at least 0 and below 100%")
    return value


@contextmanager
def _progress() -> Iterator[Progress]:
    """A live line on a terminal, nothing elsewhere."""
    if not console.is_terminal:
        yield lambda stage, done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("planning", total=None)

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=stage, completed=done, total=total)

        yield show
