"""The mock server: an OpenAI-compatible server without a model, whose every write happens at a known time.

Its log is the truth: the times at which the writes were handed to the system, not those at which they were due.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from setpoint.measure.mock.asking import read_asked
from setpoint.measure.mock.connection import Connection
from setpoint.measure.mock.log import Ended, MockLog, MockRequest
from setpoint.measure.mock.options import MockOptions
from setpoint.measure.mock.scripts import Script, ScriptBook
from setpoint.measure.mock.shapes import End
from setpoint.measure.mock.ticker import Ticker
from setpoint.measure.mock.wire import answer, refusal

LISTEN_BACKLOG = 4096

_GENERATE = {"/v1/completions": False, "/v1/chat/completions": True}
_ENDS = {End.CLOSE: Ended.CLOSED, End.RESET: Ended.RESET}


class _Stream:
    """One answer on its way."""

    __slots__ = ("_place", "_script", "_server", "connection", "over", "record")

    def __init__(self, server: MockServer, connection: Connection, script: Script, record: MockRequest) -> None:
        self._server = server
        self._script = script
        self._place = 0
        self.connection = connection
        self.record = record
        self.over = False

    @property
    def first_gap_s(self) -> float | None:
        """The gap before the first write; ``None`` if there is none."""
        return self._script.gaps_s[0] if self._script.gaps_s else None

    def step(self) -> float | None:
        """The next write, or the end."""
        if self.over:
            return None
        script = self._script
        place = self._place
        data = script.writes[place]
        if data:
            self.record.sends_s.append(monotonic())
            if not self.connection.write(data):
                self._server.end(self, Ended.CLIENT_GONE)
                return None
        self._place = place = place + 1
        if place < len(script.writes):
            return script.gaps_s[place]
        self._finish()
        return None

    def _finish(self) -> None:
        end = self._script.end
        if end is End.CLOSE:
            self.connection.close()
        elif end is End.RESET:
            self.connection.reset()
        else:
            self.connection.finish()
        self._server.end(self, Ended.REFUSED if self._script.refused else _ENDS.get(end, Ended.COMPLETE))


class MockServer:
    """The server's state. ``serve_mock`` opens it; ``url`` is where it listens, ``log()`` what it did so far."""

    def __init__(self, options: MockOptions) -> None:
        self.options = options
        self.url = ""
        self._connections: set[Connection] = set()
        self._book = ScriptBook(options)
        self._ticker = Ticker(options.tick_s, self._slowdown if options.processors is not None else None)
        self._streams: dict[Connection, _Stream] = {}
        self._waiting: deque[_Stream] = deque()
        self._serving = 0
        self.reset_log()

    def log(self) -> MockLog:
        """What happened since the start or the last ``reset_log``."""
        lag_s = self._ticker.lag_s
        return MockLog(
            requests=list(self._requests),
            freezes_s=list(self._freezes_s),
            forgotten=self._arrived - len(self._requests),
            cpu_s=time.thread_time() - self._cpu_from_s,
            tick_lag_p99_s=lag_s.percentile(99),
            tick_lag_max_s=lag_s.max_s if lag_s.n else None,
        )

    def reset_log(self) -> None:
        """Forget what happened; the next request counts as the first, which also sets off the freeze again."""
        self._requests: deque[MockRequest] = deque(maxlen=self.options.log_max)
        self._freezes_s: list[tuple[float, float]] = []
        self._arrived = 0
        self._cpu_from_s = time.thread_time()
        self._ticker.lag_s = type(self._ticker.lag_s)()

    def close(self) -> None:
        """Send nothing more and drop all connections."""
        self._ticker.close()
        for connection in list(self._connections):
            connection.reset()

    # What a connection calls.

    def handle(self, connection: Connection, method: str, path: str, headers: dict[bytes, bytes], body: bytes) -> None:
        """Answer one request."""
        chat = _GENERATE.get(path)
        if method == "POST" and chat is not None:
            self._generate(connection, headers.get(b"x-request-id", b"").decode("latin-1"), body, chat=chat)
            return
        connection.write(self._page(method, path))
        connection.finish()

    def client_came(self, connection: Connection) -> None:
        """Remember the connection, to drop it in the end."""
        self._connections.add(connection)

    def client_gone(self, connection: Connection) -> None:
        """End what the client does not wait for any longer."""
        self._connections.discard(connection)
        stream = self._streams.get(connection)
        if stream is not None:
            self.end(stream, Ended.CLIENT_GONE)

    # What a stream calls.

    def end(self, stream: _Stream, ended: Ended) -> None:
        """Take the end of a stream down and give its place to the next; a second end changes nothing."""
        if stream.over:
            return
        stream.over = True
        self._streams.pop(stream.connection, None)
        record = stream.record
        record.ended, record.ended_s = ended, monotonic()
        if record.begun_s is not None and ended is not Ended.REFUSED:
            self._serving -= 1
            self._serve_waiting()

    # The rest.

    def _page(self, method: str, path: str) -> bytes:
        if path == "/health":
            return answer(200, {"status": "ok"})
        if path == "/v1/models":
            model = {"id": self.options.model, "object": "model", "created": 0, "owned_by": "mock", "max_model_len": 1 << 20}
            return answer(200, {"object": "list", "data": [model]})
        if path == "/mock/log":
            return answer(200, self.log().to_fields())
        if path == "/mock/reset" and method == "POST":
            self.reset_log()
            return answer(200, {"reset": True})
        return refusal(404, f"{method} {path}: no such page here")

    def _generate(self, connection: Connection, request_id: str, body: bytes, *, chat: bool) -> None:
        number = self._arrived
        try:
            asked = read_asked(body, request_id, number, chat=chat)
        except ValueError as wrong:
            connection.write(refusal(400, str(wrong)))
            connection.finish()
            return
        if number == 0:
            self._plan_freeze()
        self._arrived += 1
        script = self._book.script(asked)
        record = MockRequest(
            request_id=request_id or f"mock-{number}",
            behaviour=script.behaviour,
            received_s=connection.received_s,
            max_tokens=asked.tokens,
            status=script.status,
            tokens=script.tokens,
        )
        self._requests.append(record)
        stream = _Stream(self, connection, script, record)
        self._streams[connection] = stream
        self._admit(stream, refused=script.refused)

    def _admit(self, stream: _Stream, *, refused: bool) -> None:
        options = self.options
        if refused:
            self._ticker.start(stream, monotonic(), 0.0)
        elif self._serving + len(self._waiting) >= options.queue_max + (options.slots or options.processors or 0):
            stream.record.status, stream.record.tokens = 503, (0,)
            stream.record.sends_s.append(monotonic())
            stream.connection.write(refusal(503, "the queue is full", options.retry_after_s))
            stream.connection.finish()
            self.end(stream, Ended.REFUSED)
        elif options.slots is not None and self._serving >= options.slots:
            self._waiting.append(stream)
        else:
            self._begin(stream)

    def _begin(self, stream: _Stream) -> None:
        self._serving += 1
        now_s = stream.record.begun_s = monotonic()
        first_gap_s = stream.first_gap_s
        if first_gap_s is not None:
            self._ticker.start(stream, now_s, first_gap_s)

    def _serve_waiting(self) -> None:
        while self._waiting and (self.options.slots is None or self._serving < self.options.slots):
            stream = self._waiting.popleft()
            if not stream.over:
                self._begin(stream)

    def _slowdown(self) -> float:
        """How many times as slowly each stream runs now."""
        return max(1.0, self._serving / (self.options.processors or 1))

    def _plan_freeze(self) -> None:
        if self.options.frozen_s is not None:
            begin_s, end_s = self.options.frozen_s
            asyncio.get_running_loop().call_later(begin_s, self._freeze, end_s - begin_s)

    def _freeze(self, duration_s: float) -> None:
        """Do nothing at all, then go on where everything stood."""
        begin_s = monotonic()
        time.sleep(duration_s)
        end_s = monotonic()
        self._ticker.shift(end_s - begin_s)
        self._freezes_s.append((begin_s, end_s))


@asynccontextmanager
async def serve_mock(options: MockOptions | None = None) -> AsyncIterator[MockServer]:
    """A mock on the running loop, listening when this returns. Raises ``OSError`` if the port cannot be had."""
    mock = MockServer(options or MockOptions())
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(mock), mock.options.host, mock.options.port, backlog=LISTEN_BACKLOG
    )
    try:
        family, place = server.sockets[0].family, server.sockets[0].getsockname()
        name = f"[{place[0]}]" if family == socket.AF_INET6 else place[0]
        mock.url = f"http://{name}:{place[1]}"
        yield mock
    finally:
        server.close()
        mock.close()
        await asyncio.sleep(0)
