"""What the tests of offline work share: batch files, and a server that answers each prompt as scripted."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from setpoint.loop.offline.request_line import digest_of, result_id
from setpoint.loop.offline.result_line import Result

MODEL = "scripted"
HELD_MAX_S = 60.0


def entry(name: str, **body: object) -> dict[str, object]:
    """A request whose prompt is its name."""
    return {"custom_id": name, "method": "POST", "url": "/v1/completions", "body": {"prompt": name, **body}}


def write_input(path: Path, names: Iterable[str]) -> list[bytes]:
    """A batch file; gives its lines."""
    lines = [json.dumps(entry(name)).encode() for name in names]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return lines


def result_for(line: bytes, *, failed: bool = False, status: int | None = 400) -> bytes:
    """The output line that answers an input line. status: of one that failed; ``None`` is that no answer came."""
    name = json.loads(line)["custom_id"]
    error = {"code": "x", "message": "no"} if failed else None
    return Result(result_id(digest_of(line)), name, status if failed else 200, {"text": f"é {name}"}, error).line()


def results(path: Path) -> list[dict[str, Any]]:
    """The output, which must consist of whole lines."""
    text = path.read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


@dataclass(frozen=True)
class Say:
    """One scripted answer: a status with headers and body; or the connection is cut after ``raw`` was sent.

    held: it is said only when this is set.
    """

    status: int = 200
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    raw: bytes | None = None
    held: threading.Event | None = None


def refuse(status: int, **headers: str) -> Say:
    """An error answer with headers such as ``retry_after``."""
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    body = json.dumps({"error": {"message": "not now", "type": "t", "param": None, "code": f"code_{status}"}}).encode()
    return Say(status, body, named)


CUT = Say(raw=b"")
HALF = Say(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{")
GARBAGE = Say(raw=b"\x00\xffnonsense\r\n\r\n")
NOT_JSON = Say(200, b"<html>")


@dataclass
class FakeServer:
    """scripts: by prompt, what is said first, second, ...; after that the prompt is answered. asked: how often each came."""

    url: str = ""
    scripts: dict[str, Sequence[Say]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    seen: dict[str, list[dict[str, str]]] = field(default_factory=lambda: defaultdict(list))
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, prompt: str) -> Say:
        with self._lock:
            number = self.asked[prompt]
            self.asked[prompt] += 1
        script = self.scripts.get(prompt, ())
        if number < len(script):
            return script[number]
        usage = {"prompt_tokens": 3, "completion_tokens": 2}
        return Say(body=json.dumps({"choices": [{"text": f"re {prompt}"}], "usage": usage}).encode())

    def enter(self, step: int) -> None:
        with self._lock:
            self._at_once += step
            self.most_at_once = max(self.most_at_once, self._at_once)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeServer

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._reply(Say(body=json.dumps({"data": [{"id": MODEL}]}).encode()))
        else:
            self._reply(Say(404, b"{}"))

    def do_POST(self) -> None:
        self.fake.enter(1)
        try:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self.fake.seen[body["prompt"]].append({name.lower(): value for name, value in self.headers.items()})
            self.fake.bodies[body["prompt"]] = body
            self._reply(self.fake.answer(body["prompt"]))
        finally:
            self.fake.enter(-1)

    def _reply(self, say: Say) -> None:
        if say.held is not None:
            say.held.wait(HELD_MAX_S)
        if say.raw is not None:
            self.wfile.write(say.raw)
            self.close_connection = True
            return
        content = say.body or b""
        self.send_response(say.status)
        for name, value in say.headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def fake_server(port: int = 0) -> Iterator[FakeServer]:
    """The scripted server on a free loopback port."""
    fake = FakeServer()
    handler = type("Handler", (_Handler,), {"fake": fake})
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        server.daemon_threads = True
        fake.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
