"""A client process as its parent sees it: started, told when to begin, listened to, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any

from setpoint.measure.frames import LENGTH, Job, Ready, Refused, Start, frame, length_of, value_of
from setpoint.measure.result import LoadResult
from setpoint.measure.running import Progress

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 5.0
LAST_WORDS_BYTES = 8192


class WorkerError(RuntimeError):
    """A client process did not come up, so nothing was sent; the message says what it said."""


class Worker:
    """One process and the pipes to it."""

    def __init__(self, number: int, of: int) -> None:
        self._number = number
        self.name = f"client process {number + 1} of {of}"
        self._process: asyncio.subprocess.Process | None = None
        self._words: asyncio.Task[str] | None = None

    async def start(self) -> None:
        """Start the process; a session of its own keeps Ctrl-C in a terminal from it. Raises ``WorkerError``."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "setpoint.measure.worker_process"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerError(f"the {self.name} did not start: {error}") from error
        assert self._process.stderr is not None
        self._words = asyncio.ensure_future(_tail(self._process.stderr))

    async def ready(self, job: Job) -> float:
        """Hand over the job; returns the seconds that getting ready took. Raises ``WorkerError`` if it does not."""
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                await self._tell(job)
                answer = await self._hear()
        except TimeoutError:
            raise WorkerError(f"the {self.name} was not ready within {READY_WITHIN_S:g} s") from None
        if not isinstance(answer, Ready):
            raise WorkerError(f"the {self.name} did not start: {await self._how_it_ended()}")
        return answer.setup_s

    async def work(self, start: Start, take: Callable[[int, Progress], None], end_s: float | None) -> LoadResult | str:
        """Let it send until it hands over its result; otherwise returns why there is none.

        take: told of each progress, with the number of this process. end_s: on ``time.monotonic``, how long to wait.
        Raises ``ValueError`` as ``run_load`` does.
        """
        try:
            async with asyncio.timeout(None if end_s is None else max(0.0, end_s - monotonic())):
                await self._tell(start)
                while isinstance(answer := await self._hear(), Progress):
                    take(self._number, answer)
        except TimeoutError:
            return "it did not hand over its rows in time"
        if isinstance(answer, Refused):
            raise ValueError(answer.reason)
        return answer if isinstance(answer, LoadResult) else await self._how_it_ended()

    def interrupt(self) -> None:
        """Have it send no more, and hand over what it has."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)

    async def stop(self) -> None:
        """End the process, if it has not ended; wait until it is gone."""
        if self._process is None:
            return
        for attempt in (signal.SIGTERM, signal.SIGKILL):
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.send_signal(attempt)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STOP_WITHIN_S):
                        await self._process.wait()
        if self._words is not None:
            self._words.cancel()
            await asyncio.gather(self._words, return_exceptions=True)

    async def _tell(self, value: object) -> None:
        """Send a frame; a process that is gone does not listen, and ``_hear`` finds that out."""
        assert self._process is not None
        assert self._process.stdin is not None
        # asyncio and uvloop say it in different ways.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, RuntimeError):
            self._process.stdin.write(frame(value))
            await self._process.stdin.drain()

    async def _hear(self) -> Any:
        """The next value, ``None`` if the process is gone."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            length = length_of(await self._process.stdout.readexactly(LENGTH.size))
            return value_of(await self._process.stdout.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None

    async def _how_it_ended(self) -> str:
        assert self._process is not None
        assert self._words is not None
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                code = await self._process.wait()
                said = await self._words
        except TimeoutError:
            return "it closed its output"
        if code < 0:
            name = signal.Signals(-code).name
            return name + (", which is what a machine out of memory does" if -code == signal.SIGKILL else "")
        return said or f"exit code {code}"


async def _tail(stream: asyncio.StreamReader) -> str:
    """The last line of what a process says until it ends."""
    kept = b""
    while piece := await stream.read(LAST_WORDS_BYTES):
        kept = (kept + piece)[-LAST_WORDS_BYTES:]
    lines = kept.decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
