"""A client that only sends requests and keeps what came back: no part of the load generator is in it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from setpoint.measure.event_loop import run
from setpoint.measure.mock.options import MockOptions
from setpoint.measure.mock.server import MockServer, serve_mock

Result = TypeVar("Result")

WAIT_S = 10.0


@dataclass(frozen=True)
class Reply:
    """All bytes of one connection until it was closed, and whether that was a reset."""

    data: bytes
    reset: bool = False

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self.data.split(b" ", 2)[1])

    @property
    def head(self) -> str:
        """Status line and headers."""
        return self.data.partition(b"\r\n\r\n")[0].decode()

    @property
    def body(self) -> bytes:
        """The body, out of its chunks if it has any."""
        body = self.data.partition(b"\r\n\r\n")[2]
        if "transfer-encoding: chunked" not in self.head:
            return body
        pieces = []
        while body:
            size, _, rest = body.partition(b"\r\n")
            pieces.append(rest[: int(size, 16)])
            body = rest[int(size, 16) + 2 :]
        return b"".join(pieces)

    @property
    def events(self) -> list[Any]:
        """The payloads of the event stream; ``[DONE]`` as it is."""
        found = re.findall(r"data: (.*)\n\n", self.body.decode())
        return [value if value == "[DONE]" else json.loads(value) for value in found]

    @property
    def texts(self) -> list[str]:
        """The texts of the events that have one."""
        choices = [choice for event in self.events if event != "[DONE]" for choice in event.get("choices", ())]
        texts = [choice["text"] if "text" in choice else choice["delta"].get("content", "") for choice in choices]
        return [text for text in texts if text]


async def exchange(url: str, data: bytes) -> Reply:
    """Send ``data`` on a new connection and read until it is closed."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(data)
    received, reset = b"", False
    try:
        async with asyncio.timeout(WAIT_S):
            while piece := await reader.read(1 << 16):
                received += piece
    except ConnectionResetError:
        reset = True
    finally:
        writer.close()
    return Reply(received, reset)


def post(body: Any, path: str = "/v1/completions", headers: str = "connection: close\r\n") -> bytes:
    """A POST request; ``body`` is made JSON unless it is bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nhost: mock\r\n{headers}content-length: {len(data)}\r\n\r\n".encode() + data


def asking(tokens: int = 4, **fields: Any) -> dict[str, Any]:
    """The body of a streaming request with usage."""
    return {"prompt": "a b c", "max_tokens": tokens, "stream": True, "stream_options": {"include_usage": True}} | fields


def with_mock(options: MockOptions, use: Callable[[MockServer], Awaitable[Result]]) -> Result:
    """Run ``use`` beside a mock on one loop."""

    async def main() -> Result:
        async with serve_mock(options) as mock:
            return await use(mock)

    return run(main())
