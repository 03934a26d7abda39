"""``--find-knee`` on a target that answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from setpoint.loop.console import progress_line, say
from setpoint.loop.knee.drive import FindKnee, find_knee
from setpoint.loop.knee.run import KneeRun
from setpoint.loop.on_target import client_options, judgement_of, look_at
from setpoint.measure.target import Target
from setpoint.requirement import Requirement

if TYPE_CHECKING:
    from setpoint.loop.measure import MeasureOptions
    from setpoint.measure.capacity import Capacity


async def search_target(
    target: Target, requirement: Requirement, options: MeasureOptions, *, capacity: Capacity | None = None
) -> tuple[KneeRun, str]:
    """Search the knee of ``target``; also the model that was asked. Raises ``KeyboardInterrupt`` if no probe ended."""
    found, prompts = await look_at(target, requirement, options)
    if not options.quiet:
        say(f"{found.target.url} serves {found.target.model}")
    with progress_line(quiet=options.quiet) as show:
        search = FindKnee(
            make_prompt=prompts,
            load=client_options(requirement, options),
            seed=options.seed,
            workers=options.workers,
            model_tokens=found.max_model_len,
            judgement=judgement_of(options, capacity),
        )
        done = await find_knee(found.target, requirement, search, on_progress=show, say=_quietly(options))
    if not done.probes:
        raise KeyboardInterrupt
    return done, found.target.model


def _quietly(options: MeasureOptions) -> Callable[[str], None]:
    return (lambda text: None) if options.quiet else say
