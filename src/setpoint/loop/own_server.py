"""A setpoint server in a process of its own, for as long as it is being measured."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from setpoint.engine.request import EngineFailed
from setpoint.measure.target import Target
from setpoint.policy.configuration import ServingConfig

READY_WITHIN_S = 180.0
STOP_WITHIN_S = 15.0
READY_WORDS = b"setpoint is serving at "


@contextlib.asynccontextmanager
async def own_server(subject: str, config: ServingConfig, *, log: Path) -> AsyncIterator[Target]:
    """Serve ``subject`` (requirement file or model) under ``config`` on a free loopback port; stopped on leaving.

    ``log`` gets what the server prints. Raises ``EngineFailed`` with the last of it if the server does not come up.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = (sys.executable, "-m", "setpoint", "serve", subject, "--config", config.model_dump_json(), "--port", "0")
    with log.open("wb") as log_stream:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log_stream
        )
    try:
        yield Target(url=await _url(process, log))
    finally:
        await _stop(process)


async def _url(process: asyncio.subprocess.Process, log: Path) -> str:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            async for line in process.stdout:
                if line.startswith(READY_WORDS):
                    return line.removeprefix(READY_WORDS).decode().strip()
    except TimeoutError:
        raise EngineFailed(f"the server was not ready within {READY_WITHIN_S:g} s; see {log}") from None
    await process.wait()
    words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise EngineFailed(words[-1] if words else f"the server ended with exit code {process.returncode}; see {log}")


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
