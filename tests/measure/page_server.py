"""A server of nothing but pages, for watching it without a load: what it says may change with every look."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Page = Callable[[int], object]
"""From how often the page was asked for before to its body: text, bytes, anything JSON, or (status, text)."""


@dataclass
class PageServer:
    """``asked`` are the paths that were asked for, in order; ``held_s`` is how long a page is held back."""

    pages: dict[str, Page]
    held_s: float = 0.0
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> bytes:
        """The whole HTTP answer to a ``GET``."""
        looks = self.asked.count(path)
        self.asked.append(path)
        body = self.pages[path](looks) if path in self.pages else (404, "")
        status, body = body if isinstance(body, tuple) else (200, body)
        data = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(data), data)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it is closed."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(self.held_s)
                writer.write(self.answer(head.split(b" ")[1].decode().partition("?")[0]))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def page_server(pages: dict[str, Page], held_s: float = 0.0) -> AsyncIterator[PageServer]:
    """Pages on a free port of the loopback interface."""
    served = PageServer(pages, held_s)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield served
    finally:
        server.close()
