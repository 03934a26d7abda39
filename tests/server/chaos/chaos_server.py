"""A real ``setpoint serve`` process on the demo model, and what it says of itself before and after."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("serve_faulty.py")
SOURCES = Path(__file__).parents[3] / "src"
OPTIONS = ("--max-running", "8", "--kv-cache-tokens", "8192", "--max-model-len", "512", "--mode", "continuous")
LIMITS = ("--slow-reader-s", "2", "--header-timeout-s", "30", "--drain-s", "30", "--max-waiting", "4096")
WAIT_S = 60.0
MB = 1024 * 1024


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int
    body: bytes


@dataclass(frozen=True)
class State:
    """The server at rest: what must not grow."""

    kv_used_blocks: int
    running: int
    waiting: int
    connections: int
    tasks: int
    threads: int
    open_fds: int
    rss_mb: float

    def busy_or_more_than(self, baseline: State) -> list[str]:
        """The names of what is still in use, or above the baseline."""
        now, then = asdict(self), asdict(baseline)
        return [name for name in now if name != "rss_mb" and now[name] > then[name]]


class ChaosServer:
    """The process and its address; every question has a connection of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    async def ask(self, method: str, path: str, body: object = None, *, raw: bytes | None = None) -> Reply:
        """One request on a connection of its own."""
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            head = f"{method} {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: {len(content)}\r\n\r\n"
            writer.write(head.encode() + content)
            answer = await reader.read()
            first, _, rest = answer.partition(b"\r\n\r\n")
            return Reply(int(first.split(b" ", 2)[1]), _dechunked(rest) if b"transfer-encoding: chunked" in first else rest)
        finally:
            writer.close()

    async def state(self) -> State:
        """From ``/metrics``."""
        text = (await self.ask("GET", "/metrics")).body.decode()

        def value(name: str) -> float:
            found = re.search(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
            return float(found[1]) if found else -1.0

        return State(
            kv_used_blocks=int(value("setpoint_kv_cache_used_blocks")),
            running=int(value("setpoint_num_requests_running")),
            waiting=int(value("setpoint_num_requests_waiting")),
            connections=int(value("setpoint_http_connections")),
            tasks=int(value("setpoint_event_loop_tasks")),
            threads=int(value("setpoint_threads")),
            open_fds=int(value("process_open_fds")),
            rss_mb=round(value("process_resident_memory_bytes") / MB, 1),
        )

    async def rested_state(self) -> State:
        """The baseline: after a little of everything, so that threads and files that are made once are there."""
        for text in ("Once", "word " * 4000):
            await self.ask("POST", "/tokenize", {"text": text})
        await self.serves()
        await self.serves(response_format={"type": "json_object"})
        state = await self.state()
        while state.kv_used_blocks or state.running or state.waiting:
            state = await self.state()
        return state

    async def metric(self, name: str) -> float:
        """The value of a metric with its labels, or the sum over all labels where none are given."""
        text = (await self.ask("GET", "/metrics")).body.decode()
        return sum(float(found) for found in re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE))

    async def back_to(self, baseline: State) -> State:
        """Wait until nothing is in use that was not at the baseline, then check that the server is well."""
        until_s = time.monotonic() + WAIT_S
        while True:
            state = await self.state()
            left = state.busy_or_more_than(baseline)
            if not left and state.kv_used_blocks == state.running == state.waiting == 0:
                break
            assert time.monotonic() < until_s, f"still above the baseline: {left}, {state} against {baseline}"
            await asyncio.sleep(0.1)
        assert (await self.ask("GET", "/health")).status == 200
        await self.serves()
        return state

    async def serves(self, **more: object) -> float:
        """A normal request, with ``more`` in its body, is answered; gives its seconds."""
        began_s = time.perf_counter()
        body = {"prompt": "One, two,", "max_tokens": 4, "temperature": 0} | more
        reply = await self.ask("POST", "/v1/completions", body)
        assert reply.status == 200, reply.body[:300]
        assert json.loads(reply.body)["usage"]["completion_tokens"] >= 1
        return time.perf_counter() - began_s

    def fail_a_step(self) -> None:
        """The step under way, or the next, is lost."""
        self.process.send_signal(signal.SIGUSR1)


def _dechunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        whole, body = whole + body[:length], body[length + 2 :]
    return whole


@contextmanager
def chaos_server(*options: str) -> Iterator[ChaosServer]:
    """The process, ready; killed at the end if it is still there."""
    command = [sys.executable, str(SCRIPT), "serve", "smollm2-135m", "--port", "0", *OPTIONS, *LIMITS, *options]
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "serving at" in line, line
            yield ChaosServer(process, int(line.rsplit(":", 1)[1]))
        finally:
            process.kill()
