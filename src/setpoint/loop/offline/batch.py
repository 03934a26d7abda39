"""``setpoint batch``: a file of requests through a server, somebody's or one of our own, into a file of answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from setpoint.loop.console import console, say
from setpoint.loop.errors import BadInput, ServerDied
from setpoint.loop.interrupts import terminate_as_interrupt
from setpoint.loop.offline.concurrency import Adaptive, Concurrency, Fixed
from setpoint.loop.offline.drive import Drive, GaveUp, Models
from setpoint.loop.offline.input_index import read_input
from setpoint.loop.offline.output_file import Found, OutputFile, resume, write_errors
from setpoint.loop.offline.progress import show_progress
from setpoint.loop.offline.sender import Sender
from setpoint.loop.offline.summary import Summary
from setpoint.loop.offline.tally import Tally
from setpoint.loop.offline.whom import models_at, models_of_own
from setpoint.loop.offline.work import Work
from setpoint.measure.event_loop import run
from setpoint.measure.target import Target

if TYPE_CHECKING:
    from setpoint.policy.configuration import ServingConfig

CONCURRENCY_MAX = 1024
STARTS_MAX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """What the command line decides. concurrency: ``None`` is ``auto``. errors: also write the failed ones there."""

    input: Path
    output: Path
    errors: Path | None = None
    overwrite: bool = False
    concurrency: int | None = None
    timeout_s: float = 3600.0
    give_up_s: float = 3600.0


def batch_at(target: Target, options: BatchOptions) -> Summary:
    """Through a server that runs already. Raises ``BadInput``, or ``ProbeError`` if it does not answer as one."""

    async def main(work: Work) -> None:
        models = await models_at(target, work.index)
        await _through(target, models, work, options, _concurrency(options, Adaptive))

    return _batch(main, options)


def batch_own(subject: str, config: ServingConfig | None, options: BatchOptions) -> Summary:
    """Through a server of our own, that has nothing else to do and is stopped at the end.

    subject: as ``setpoint serve`` takes it. config: ``None`` takes the one for the most throughput. A server that dies is
    started again, at most ``STARTS_MAX`` times in a row without a request getting done. Raises ``BadInput``,
    ``EngineFailed`` if it does not come up, ``ServerDied`` if it keeps dying.
    """
    from setpoint.engine.models import resolve_model
    from setpoint.loop.configs import THROUGHPUT_CONFIG
    from setpoint.loop.own_server import on_own_server
    from setpoint.loop.serve import read_subject

    source, _ = read_subject(subject)
    chosen = config or THROUGHPUT_CONFIG
    # As many again wait at the server, so that a place which falls free is filled at the next step.
    concurrency = _concurrency(options, lambda: Fixed(min(CONCURRENCY_MAX, 2 * chosen.max_running)))

    async def main(work: Work) -> None:
        async def through(target: Target) -> None:
            await _through(target, await models_of_own(target, work.index), work, options, concurrency)

        deaths = 0
        while work.tally.left:
            ended = work.tally.ended
            say("starting the engine")
            try:
                await on_own_server(subject, chosen, through, log=None)
            except ServerDied as error:
                deaths = deaths + 1 if work.tally.ended == ended else 1
                if deaths == STARTS_MAX:
                    raise
                say(str(error))

    def resolved(work: Work) -> Coroutine[Any, Any, None]:
        resolve_model(source.source, revision=source.revision, say=say)
        return main(work)

    return _batch(resolved, options)


def _concurrency(options: BatchOptions, automatic: Callable[[], Concurrency]) -> Concurrency:
    return automatic() if options.concurrency is None else Fixed(options.concurrency)


async def _through(target: Target, models: Models, work: Work, options: BatchOptions, concurrency: Concurrency) -> None:
    """What is left of ``work`` through one server."""
    sender = Sender(target, connections=concurrency.most, timeout_s=options.timeout_s)
    showing = asyncio.create_task(show_progress(work.tally, console))
    try:
        work.begin()
        await Drive(work, sender, concurrency, models, give_up_s=options.give_up_s).run()
    finally:
        await sender.close()
        showing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await showing


def _batch(main: Callable[[Work], Coroutine[Any, Any, None]], options: BatchOptions) -> Summary:
    started_s = monotonic()
    stopped, interrupted = "", False
    with _opened(options) as work:
        if work.tally.already:
            say(f"{options.output}: {work.tally.already} of {work.tally.total} requests are done already")
        try:
            with terminate_as_interrupt():
                if work.tally.left:
                    try:
                        run(main(work))
                    finally:
                        work.end()
        except GaveUp as error:
            stopped = str(error)
        except KeyboardInterrupt:
            stopped, interrupted = "interrupted", True
        if options.errors is not None:
            write_errors(options.output, options.errors)
        return Summary(options.input, options.output, options.errors, work.tally, monotonic() - started_s, stopped, interrupted)


@contextlib.contextmanager
def _opened(options: BatchOptions) -> Iterator[Work]:
    """Input checked, output locked, and what it answers already marked. Nothing is changed yet. Raises ``BadInput``."""
    _refuse_clashes(options)
    index = read_input(options.input)
    with OutputFile(options.output) as output:
        found = Found(0, 0, 0) if options.overwrite else resume(options.output, index)
        output.keep(found)
        tally = Tally(len(index), found.answered - found.failed, found.failed, monotonic())
        yield Work(index, output, tally)


def _refuse_clashes(options: BatchOptions) -> None:
    if options.output.exists() and not options.output.is_file():
        raise BadInput(f"{options.output}: not a regular file; name a file for the answers")
    if _same(options.input, options.output):
        raise BadInput(f"{options.output}: is the input itself; name another file for the answers")
    if options.errors is not None:
        if options.errors.is_dir():
            raise BadInput(f"--errors {options.errors}: this is a folder; name a file")
        if not options.errors.absolute().parent.is_dir():
            raise BadInput(f"--errors {options.errors}: there is no folder {options.errors.parent}; make it first")
        if _same(options.errors, options.input) or _same(options.errors, options.output):
            raise BadInput(f"--errors {options.errors}: is the input or the output; name another file")


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))
