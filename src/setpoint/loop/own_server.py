"""A setpoint server in a process of its own, for as long as it is being measured."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from setpoint.engine.request import EngineFailed
from setpoint.loop.errors import ServerDied
from setpoint.loop.lifeline import LIFELINE_OPTION
from setpoint.measure.target import Target
from setpoint.policy.configuration import ServingConfig

READY_WITHIN_S = 180.0
STOP_WITHIN_S = 15.0
READY_WORDS = b"setpoint is serving at "
ERROR_WORDS = "setpoint: "
LAST_WORDS_BYTES = 8192

Result = TypeVar("Result")


async def on_own_server(
    subject: str,
    config: ServingConfig,
    work: Callable[[Target], Awaitable[Result]],
    *,
    log: Path | None,
    keep: bool = False,
) -> Result:
    """Serve ``subject`` (requirement file or model) under ``config`` on a free loopback port while ``work`` runs.

    keep: cancelled, ``work`` may still come to what it has by then, and that is returned.
    ``log`` gets what the server prints (``None``: nobody wants it). Whatever ends this, the server is stopped. Raises
    ``EngineFailed`` with the server's last words if it does not come up, ``ServerDied`` if it ends before ``work`` does.
    """
    with contextlib.ExitStack() as stack:
        if log is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="setpoint-")))
            said = folder / "server.log"
        else:
            log.parent.mkdir(parents=True, exist_ok=True)
            said = log
        try:
            async with _server_process(subject, config, said) as process:
                url = await _url(process)
                if url is None:
                    raise EngineFailed(await _last_words(process, said))
                return await _while_it_lives(process, work(Target(url=url)), said, keep=keep)
        except (EngineFailed, ServerDied) as error:
            raise error if log is None else type(error)(f"{error} (log: {log})") from error


@contextlib.asynccontextmanager
async def _server_process(subject: str, config: ServingConfig, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process of the server; stopped on leaving.

    It has a session of its own, so that Ctrl-C in a terminal reaches us alone and we decide what ends when; our end of its
    standard input is its lifeline. A key in our environment is meant for somebody else's server and kept from it.
    """
    command = [sys.executable, "-P", "-m", "setpoint", "serve", subject, "--config", config.model_dump_json()]
    command += ["--port", "0", LIFELINE_OPTION]
    environment = {name: value for name, value in os.environ.items() if name != "SETPOINT_API_KEY"}
    with log.open("wb") as log_stream:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log_stream,
            env=environment,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await _stop(process)


async def _url(process: asyncio.subprocess.Process) -> str | None:
    """Where the server listens once it is ready; ``None`` if it ended before."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            async for line in process.stdout:
                if line.startswith(READY_WORDS):
                    return line.removeprefix(READY_WORDS).decode().strip()
    except TimeoutError:
        raise EngineFailed(f"the server was not ready within {READY_WITHIN_S:g} s") from None
    return None


async def _while_it_lives(process: asyncio.subprocess.Process, work: Awaitable[Result], log: Path, *, keep: bool) -> Result:
    """What ``work`` comes to; it is cancelled, with ``ServerDied``, if the process ends before. keep: see ``on_own_server``."""
    working = asyncio.ensure_future(work)
    dying = asyncio.ensure_future(process.wait())
    try:
        await _either(working, dying, keep=keep)
        if working.done():
            return working.result()
    finally:
        working.cancel()
        dying.cancel()
        await asyncio.gather(working, dying, return_exceptions=True)
    raise ServerDied(f"the server ended before its work did: {await _last_words(process, log)}")


async def _either(working: asyncio.Task[Result], dying: asyncio.Task[int], *, keep: bool) -> None:
    """Until one of them is done; ``keep``: a cancellation is one of ``working`` first."""
    try:
        await asyncio.wait((working, dying), return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        if not keep:
            raise
        working.cancel()
        await asyncio.wait((working,))
        task = asyncio.current_task()
        if working.cancelled() or task is None:
            raise
        task.uncancel()


async def _last_words(process: asyncio.subprocess.Process, log: Path) -> str:
    """What the server said last, or how it ended if it said nothing."""
    code = await process.wait()
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - LAST_WORDS_BYTES))
        lines = stream.read().decode("utf-8", errors="replace").strip().splitlines()
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (", which is what a machine out of memory does" if -code == signal.SIGKILL else "")
    return lines[-1].removeprefix(ERROR_WORDS) if lines else f"it ended with exit code {code} and said nothing"


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Twice the signal: a measurement that is over has nothing to drain for."""
    for attempt in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(attempt)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_WITHIN_S / 3):
                await process.wait()
