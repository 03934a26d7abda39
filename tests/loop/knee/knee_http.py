"""A processor-sharing server behind HTTP, in real time: its capacity is shared equally by the requests in it."""

from __future__ import annotations

import asyncio
import heapq
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass
class SharingHttp:
    """``token_s`` seconds of work for each output token; one clock counts the work each request got."""

    token_s: float
    port: int = 0
    served: int = 0
    _running: list[tuple[float, int, bool, asyncio.StreamWriter, int]] = field(default_factory=list)
    _jobs: int = 0
    _clock: float = 0.0
    _since_s: float = 0.0
    _timer: asyncio.TimerHandle | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                lengths = [line.split(":")[1] for line in head.split("\r\n") if line.startswith("content-length:")]
                body = await reader.readexactly(int(lengths[0])) if lengths else b""
                if head.startswith("post /v1/completions"):
                    self._start(json.loads(body), writer)
                else:
                    page = b'{"data":[{"id":"shared"}]}' if "/v1/models" in head.split("\r\n")[0] else b""
                    status = b"200 OK" if page else b"404 Not Found"
                    kind = b"\r\ncontent-type: application/json\r\ncontent-length: "
                    writer.write(b"HTTP/1.1 " + status + kind + str(len(page)).encode() + b"\r\n\r\n" + page)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _start(self, asked: dict[str, int], writer: asyncio.StreamWriter) -> None:
        self._advance()
        tokens = asked["max_tokens"]
        self.served += 1
        heapq.heappush(self._running, (self._clock + self.token_s, self.served, False, writer, tokens))
        heapq.heappush(self._running, (self._clock + tokens * self.token_s, self.served + 10**9, True, writer, tokens))
        self._jobs += 1
        self._wake()

    def _advance(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._jobs:
            self._clock += (now_s - self._since_s) / self._jobs
        self._since_s = now_s

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._running:
            wait_s = (self._running[0][0] - self._clock) * self._jobs
            self._timer = asyncio.get_running_loop().call_later(max(0.0, wait_s), self._due)

    def _due(self) -> None:
        self._advance()
        while self._running and self._running[0][0] <= self._clock + 1e-6:
            _, _, last, writer, tokens = heapq.heappop(self._running)
            if writer.is_closing():
                self._jobs -= last
                continue
            if not last:
                writer.write(HEAD + _chunk(_event("a")))
                continue
            self._jobs -= 1
            usage = {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens}
            rest = b"".join(_event("a") for _ in range(tokens - 2)) + _event("a", "length")
            rest += b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\ndata: [DONE]\n\n"
            writer.write(_chunk(rest) + b"0\r\n\r\n")
        self._wake()


def _event(text: str, finish: str | None = None) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "text": text, "finish_reason": finish}]}).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@contextmanager
def sharing_http(token_s: float) -> Iterator[SharingHttp]:
    """The server on a thread of its own."""
    server = SharingHttp(token_s)
    started, loop = threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        listener = await asyncio.start_server(server.on_client, "127.0.0.1", 0)
        server.port = listener.sockets[0].getsockname()[1]
        started.set()

    def work() -> None:
        loop.run_until_complete(serve())
        loop.run_forever()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
