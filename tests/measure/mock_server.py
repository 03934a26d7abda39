"""A mock OpenAI-compatible server whose every write happens at a known time after the request was received.

Which behaviour (``mock_scripts``) a request gets is in its body: ``{"mock": NAME}`` (``extra_body`` of the client), or,
with ``{"mock": [NAMES]}``, the one at the index that ends its ``x-request-id``; with ``{"mock": {"attempts": [NAMES]}}`` the
first attempt of a request gets the first, the next the second, and all further ones the last.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, cast

from mock_scripts import BEHAVIOURS, End, Script, refusal

# SO_LINGER, switched on with no time to linger, makes the kernel send a reset on close.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Seen:
    """One request as the mock received it."""

    request_id: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    arrived_s: float
    script: Script


@dataclass
class MockServer:
    """The running mock. ``pages`` are the bodies of GET paths (404 otherwise); ``api_key`` is demanded if set."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    pages: dict[str, Callable[[str], object]] = field(default_factory=dict)
    api_key: str | None = None
    connections: int = 0
    open_now: int = 0
    open_peak: int = 0
    transports: set[asyncio.Transport] = field(default_factory=set)

    def by_id(self) -> dict[str, Seen]:
        """Requests by their id."""
        return {seen.request_id: seen for seen in self.seen}


class _Connection(asyncio.Protocol):
    def __init__(self, server: MockServer) -> None:
        self._server = server
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not of asyncio's classes.
        self._server.transports.add(self._transport)
        self._server.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        request_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return
        arrived_s = monotonic()
        self._buffer = rest[length:]
        method, path, _ = request_line.split(" ")
        if self._server.api_key and headers.get("authorization") != f"Bearer {self._server.api_key}":
            self._play(refusal(401), arrived_s)
        elif method == "GET":
            self._play(self._page(path), arrived_s)
        else:
            body = json.loads(rest[:length])
            request_id = headers["x-request-id"]
            attempt = sum(seen.request_id == request_id for seen in self._server.seen)
            seen = Seen(request_id, path, headers, body, arrived_s, _script(request_id, body, attempt))
            self._server.seen.append(seen)
            self._server.open_now += 1
            self._server.open_peak = max(self._server.open_peak, self._server.open_now)
            self._play(seen.script, arrived_s, counted=True)

    def _page(self, path: str) -> Script:
        page = self._server.pages.get(path.partition("?")[0])
        if page is None:
            return refusal(404)
        value = page(path)
        body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        return Script([(0.0, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))], [])

    def _play(self, script: Script, arrived_s: float, *, counted: bool = False) -> None:
        loop = asyncio.get_running_loop()
        # With the last write, not after it: its client may be back before another timer runs.
        over = script.end_s is None and bool(script.writes)
        for place, (time_s, data) in enumerate(script.writes):
            last = over and counted and place == len(script.writes) - 1
            loop.call_later(max(0.0, arrived_s + time_s - monotonic()), self._write, data, last)
        last_s = script.writes[-1][0] if script.writes else 0.0
        end_s = last_s if script.end_s is None else script.end_s
        loop.call_later(max(0.0, arrived_s + end_s - monotonic()), self._end, script.end, counted and not over)

    def _write(self, data: bytes, last: bool) -> None:
        self._server.open_now -= last
        self._transport.write(data)

    def _end(self, end: End, counted: bool) -> None:
        self._server.open_now -= counted
        if end is End.CLOSE:
            self._transport.close()
        elif end is End.RESET:
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._transport.abort()


def _script(request_id: str, body: dict[str, Any], attempt: int) -> Script:
    wanted = body.get("mock", "plain")
    if isinstance(wanted, dict):
        wanted = wanted["attempts"][min(attempt, len(wanted["attempts"]) - 1)]
    if isinstance(wanted, list):
        wanted = wanted[int(request_id.rpartition("-")[2]) % len(wanted)]
    return BEHAVIOURS[wanted]()


@asynccontextmanager
async def mock_server(tls: ssl.SSLContext | None = None) -> AsyncIterator[MockServer]:
    """A mock on a free port of the loopback interface."""
    mock = MockServer()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(mock), "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    mock.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield mock
    finally:
        server.close()
        for transport in list(mock.transports):
            transport.abort()
        await asyncio.sleep(0)
