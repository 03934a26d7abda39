"""A measurement of a target that answers: look at it, plan, send, judge."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from setpoint.loop.console import progress_line, say
from setpoint.loop.errors import BadInput
from setpoint.loop.measuring import Judgement, MeasuredRun, load_options, measure, require_room
from setpoint.loop.planning import plan_for
from setpoint.loop.tokenizers import prompt_maker
from setpoint.measure.options import Endpoint, LoadOptions
from setpoint.measure.power import PowerSource
from setpoint.measure.probe import Discovery, discover
from setpoint.measure.result import Ended
from setpoint.measure.target import Target
from setpoint.measure.workers import worker_choice
from setpoint.record import RequestClass
from setpoint.report.format import printable
from setpoint.requirement import Requirement
from setpoint.workload.plan import LoadPlan
from setpoint.workload.prompt import PromptMaker

if TYPE_CHECKING:
    from setpoint.loop.goal import Goal
    from setpoint.loop.goal_watch import GoalWatch
    from setpoint.loop.measure import MeasureOptions
    from setpoint.measure.capacity import Capacity

NO_SUCH_PAGE = 404
REASONS_TOLD = 3
UNNAMED = "measured"


@dataclass(frozen=True, slots=True)
class OnTarget:
    """What came of it. name: of the candidate; workers: processes that sent."""

    measured: MeasuredRun
    name: str
    workers: int


async def measure_target(
    target: Target,
    requirement: Requirement,
    options: MeasureOptions,
    *,
    name: str | None = None,
    capacity: Capacity | None = None,
) -> OnTarget:
    """Measure ``target``; without a ``name`` the candidate is called after the model.

    A cancellation ends the measuring, and what is known by then is judged. Raises ``ProbeError`` if it does not answer,
    ``BadInput`` for a load it cannot be asked.
    """
    found, prompts = await look_at(target, requirement, options)
    name = name or found.target.model or UNNAMED
    plan = plan_for(requirement, options, prompts, most_tokens=found.max_model_len)
    if found.max_model_len is not None:
        require_room(plan, found.max_model_len)
    enough = _watch(requirement, options, plan)
    workers = 1 if enough is not None else options.workers or worker_choice(plan, capacity=capacity).workers
    if not options.quiet:
        _introduce(found, plan, workers)
    with progress_line(quiet=options.quiet) as show:
        measured = await measure(
            found.target,
            requirement,
            plan,
            client_options(requirement, options),
            name=name,
            on_progress=show,
            workers=workers,
            judgement=judgement_of(options, capacity),
            enough=enough,
            keep=True,
        )
    _tell_failures(measured, options)
    _hint(measured, options)
    if options.goal is not None and measured.ended is not Ended.INTERRUPTED:
        measured = _with_goal(measured, options.goal)
    return OnTarget(measured, name, workers)


async def look_at(target: Target, requirement: Requirement, options: MeasureOptions) -> tuple[Discovery, PromptMaker]:
    """What the target is, and what makes prompts for it. Raises ``ProbeError``."""
    found = await discover(target)
    chat = options.endpoint is Endpoint.CHAT
    talks = requirement.profile.has_conversations or (options.trace is not None and options.trace.has_conversations)
    ids = found.takes_token_ids and not talks
    return found, prompt_maker(found.target, options.tokenizer, token_ids_accepted=ids, chat=chat)


def judgement_of(options: MeasureOptions, capacity: Capacity | None) -> Judgement:
    """What the rows are held to besides the requirement."""
    return Judgement(assertions=options.assertions, declared=options.declared, capacity=capacity)


def _watch(requirement: Requirement, options: MeasureOptions, plan: LoadPlan) -> GoalWatch | None:
    if options.goal is None:
        return None
    from setpoint.loop.goal_watch import watch

    return watch(options.goal, plan, streaming=requirement.profile.streaming)


def _with_goal(measured: MeasuredRun, goal: Goal) -> MeasuredRun:
    """``measured`` with a remark on whether the goal was reached."""
    took_s = measured.measured.sustained.duration_s
    if measured.ended is Ended.ENOUGH:
        remark = f"Stopped after {took_s:.0f} s: {goal.words()} was reached."
    else:
        remark = f"{goal.words()} was not reached within {took_s:.0f} s; the intervals are as wide as they are."
    reasons = [*measured.validity.reasons, remark]
    return replace(measured, validity=measured.validity.model_copy(update={"reasons": reasons}))


def client_options(requirement: Requirement, options: MeasureOptions) -> LoadOptions:
    """The client's options. Raises ``BadInput`` naming the option that cannot be used."""
    load = load_options(requirement, options.schedule, endpoint=options.endpoint, ignore_eos=options.ignore_eos)
    try:
        return replace(
            load,
            max_in_flight=options.max_in_flight,
            extra_body=options.extra,
            max_completion_tokens=options.max_completion_tokens,
            seed=options.seed,
            retries=options.retries,
            metrics_urls=options.metrics_urls,
            power=PowerSource.parse(options.power_url) if options.power_url is not None else None,
        )
    except ValueError as error:
        raise BadInput(f"--{str(error).replace('_', '-', 1)}") from error


def _introduce(found: Discovery, plan: LoadPlan, workers: int) -> None:
    requests = f"{len(plan.requests)} requests" if plan.concurrency is None else f"{plan.concurrency} requests at a time"
    length = f" over {plan.duration_s:.0f} s" if plan.by_time else ""
    senders = f", sent by {workers} processes" if workers > 1 else ""
    say(f"{found.target.url} serves {found.target.model}: {requests}{length}{senders}")
    if not plan.prompt_tokens_exact:
        say("prompt lengths are estimates: nothing was reachable that counts this server's tokens")
    for note in plan.notes:
        say(note)


def _tell_failures(measured: MeasuredRun, options: MeasureOptions) -> None:
    """Why requests failed, the most frequent reasons first."""
    if options.quiet:
        return
    rows = zip(measured.requests["request_class"].to_pylist(), measured.requests["error"].to_pylist(), strict=True)
    reasons = Counter(error for name, error in rows if name == RequestClass.FAILED and error)
    for reason, count in reasons.most_common(REASONS_TOLD):
        say(f"{count} requests failed: {printable(reason)}")
    if any("ignore_eos" in reason for reason in reasons):
        say("this server does not know the field ignore_eos: leave it out with --no-ignore-eos")


def _hint(measured: MeasuredRun, options: MeasureOptions) -> None:
    """What to try where every request was refused in the same telling way."""
    statuses = set(measured.requests["status"].to_pylist())
    if statuses == {NO_SUCH_PAGE} and not options.quiet:
        other = Endpoint.CHAT if options.endpoint is Endpoint.COMPLETIONS else Endpoint.COMPLETIONS
        say(f"every request was answered 404: this server has no {options.endpoint} endpoint; try --endpoint {other}")
