"""What the tests of the loop and of the command line share: the command as users run it, and servers to point it at."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import psutil

sys.path.append(str(Path(__file__).resolve().parent.parent / "measure"))

from mock_server import MockServer, mock_server

TIMEOUT_S = 120.0
MODELS_PAGE = {"data": [{"id": "mock-model", "max_model_len": 2048}]}
TINY = """
name: tiny
model: smollm2-135m
profile:
  prompt_tokens: 16
  output_tokens: 8
  arrival: {process: poisson, rate: 8/s}
slo:
  ttft: {p50: 20s}
  itl: {p50: 20s}
"""
IMPOSSIBLE = TINY.replace("20s", "1us").replace("name: tiny", "name: impossible")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "setpoint", *arguments]


def setpoint(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command to its end, with nobody at the terminal."""
    return subprocess.run(
        command(*arguments), cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S, check=False
    )


@contextmanager
def running(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """The command while it runs, its words on ``stderr`` and its result on ``stdout``; killed on leaving."""
    process = subprocess.Popen(
        command(*arguments), cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def wait_for_words(lines: Iterator[str], words: str) -> list[str]:
    """Read ``lines`` up to the one that holds ``words``; all that was read."""
    read = []
    for line in lines:
        read.append(line)
        if words in line:
            return read
    raise AssertionError(f"{words!r} was never said: {read}")


def all_gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=20)[1]


def requirement_file(folder: Path, text: str = TINY) -> Path:
    file = folder / "requirement.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@contextmanager
def mock_in_thread() -> Iterator[MockServer]:
    """The load generator's mock server on a thread, for commands that bring their own event loop."""
    ready = threading.Event()
    found: list[tuple[MockServer, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        async with mock_server() as mock:
            mock.pages["/v1/models"] = lambda _: MODELS_PAGE
            over = asyncio.Event()
            found.append((mock, asyncio.get_running_loop(), over))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(TIMEOUT_S)
    mock, loop, over = found[0]
    try:
        yield mock
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(TIMEOUT_S)


class OnlyModels(BaseHTTPRequestHandler):
    """A server that lists a model and has no other page."""

    def do_GET(self) -> None:
        found = self.path == "/v1/models"
        body = b'{"data": [{"id": "m"}]}' if found else b""
        self.send_response(200 if found else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(404)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass
