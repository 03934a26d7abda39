"""A real server for a test, and the plainest of clients for it."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from scripted_engine import ScriptedEngine

from setpoint.server.app import create_app
from setpoint.server.background import BackgroundServer

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}


@dataclass(frozen=True)
class Reply:
    """One HTTP answer, read to its end."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> dict[str, Any]:
        body = self.json
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        error: dict[str, Any] = body["error"]
        return error

    @property
    def events(self) -> list[Any]:
        """The JSON of a stream's events; the stream must end with ``[DONE]``."""
        lines = self.raw.decode().split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


@dataclass(frozen=True)
class Served:
    """A server under test and its engine."""

    url: str
    port: int
    engine: ScriptedEngine

    def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None, raw: bytes = b""
    ) -> Reply:
        """One request on its own connection. ``body`` goes as JSON, ``raw`` as it is."""
        content = raw if body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body=content, headers=dict(headers or {}))
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, named, answer.read())
        finally:
            connection.close()

    def open(self, path: str, body: object, headers: str = "") -> socket.socket:
        """A raw socket on which one POST was sent; the answer is the caller's to read."""
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: test\r\n{headers}content-length: {len(content)}\r\n\r\n"
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        raw.sendall(head.encode() + content)
        return raw


@contextmanager
def serving(engine: ScriptedEngine | None = None, **options: Any) -> Iterator[Served]:
    """A server over ``engine`` on a free port; ``options`` go to ``create_app``."""
    engine = engine or ScriptedEngine()
    with BackgroundServer(create_app(engine, **options)) as server:
        yield Served(server.url, server.port, engine)
