"""One measurement: a requirement's load on a target, and everything that follows from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from setpoint.loop.errors import BadInput
from setpoint.loop.measured import Judgement, MeasuredRun
from setpoint.loop.schedule import Schedule
from setpoint.measure.client import run_load
from setpoint.measure.enough import Enough
from setpoint.measure.options import Endpoint, LoadOptions
from setpoint.measure.result import Ended, LoadResult
from setpoint.measure.running import Progress
from setpoint.measure.target import Target, TargetError
from setpoint.measure.workers import run_load_over_workers
from setpoint.record import Phase
from setpoint.requirement import Requirement
from setpoint.workload.plan import LoadPlan, largest_context_tokens, plan_load
from setpoint.workload.prompts import PromptMaker

__all__ = ["Judgement", "MeasuredRun", "load_options", "measure", "plan_requests", "require_room"]


def plan_requests(requirement: Requirement, schedule: Schedule, *, seed: int, make_prompt: PromptMaker) -> LoadPlan:
    """Every request of the run, from one seed, before the first is sent. Raises ``BadInput`` for a load that cannot be."""
    try:
        return plan_load(
            requirement.profile,
            seed=seed,
            warmup_s=schedule.warmup_s,
            sustained_s=schedule.sustained_s,
            burst_repeats=schedule.bursts,
            recovery_s=schedule.recovery_s,
            make_prompt=make_prompt,
        )
    except ValueError as error:
        raise BadInput(f"this load cannot be planned: {error}") from error


def require_room(plan: LoadPlan, model_tokens: int) -> None:
    """Raises ``BadInput`` if a request of ``plan`` is longer, prompt and answer together, than the model takes."""
    longest = largest_context_tokens(plan.requests)
    if longest > model_tokens:
        raise BadInput(
            f"a request of {longest} tokens, prompt and answer together, is planned, but the model takes at most"
            f" {model_tokens}: lower prompt_tokens or output_tokens"
        )


def load_options(
    requirement: Requirement, schedule: Schedule, *, endpoint: Endpoint = Endpoint.COMPLETIONS, ignore_eos: bool = True
) -> LoadOptions:
    """The client's options that follow from the requirement."""
    return LoadOptions(
        endpoint=endpoint,
        streaming=requirement.profile.streaming,
        drain_s=schedule.drain_s,
        ignore_eos=ignore_eos,
        slos=requirement.slo,
    )


async def measure(
    target: Target,
    requirement: Requirement,
    plan: LoadPlan,
    options: LoadOptions,
    *,
    name: str,
    on_progress: Callable[[Progress], None] | None = None,
    workers: int = 1,
    judgement: Judgement | None = None,
    enough: Enough | None = None,
    keep: bool = False,
) -> MeasuredRun:
    """Put ``plan`` on ``target`` from so many processes and judge what happened against ``requirement``.

    enough: ends the load early; this process alone sends then. keep: a cancellation ends it too, once there is something of
    the sustained phase to be judged. Raises ``WorkerError`` if a process does not come up, ``BadInput`` for a plan that
    cannot be sent.
    """
    try:
        if enough is not None:
            result = await run_load(target, plan, options, on_progress, enough=enough, keep=keep)
        else:
            result = await run_load_over_workers(target, plan, options, on_progress, workers=workers, keep=keep)
    except TargetError:
        raise
    except ValueError as error:
        raise BadInput(f"this load cannot be sent: {error}") from error
    if result.ended is Ended.INTERRUPTED and not _has_sustained(result):
        raise asyncio.CancelledError
    from setpoint.loop.judging import judged  # Not before the first request: it takes a while to load.

    return judged(result, requirement, name=name, judgement=judgement)


def _has_sustained(result: LoadResult) -> bool:
    spans = (span for span in result.phases if span.end_s > span.start_s)
    rows = (row.phase is Phase.SUSTAINED for row in result.outcomes)
    return any(span.phase is Phase.SUSTAINED for span in spans) and any(rows)
