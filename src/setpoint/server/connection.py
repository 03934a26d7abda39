"""One HTTP connection within bounds: how large and how late its headers may be, how long it may leave an answer unread.

The HTTP implementation underneath bounds neither headers nor readers. This one counts the bytes of each head, and a sweep
over all connections (``Guard.sweep``) ends what has stood still for too long: a timer for each would cost more.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict, deque
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast

from prometheus_client import Counter
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from setpoint.server.errors import ApiError, crowded, invalid
from setpoint.server.held_bodies import HELD_BODY, BodyBudget, HeldBody
from setpoint.server.limits import ServerLimits

SWEEP_S: Final = 0.25
# Connections over the limit that may still ask for ``/health``; the next one is closed unheard.
HEALTH_CONNECTIONS: Final = 64
MAX_PIPELINED: Final = 16
MAX_HEADERS: Final = 128
# What one read may hold beside body: framing is counted from the last piece of body on.
READ_BYTES: Final = 256 * 1024
# Fewer bytes than this taken in ``slow_reader_s`` is not reading.
LEAST_TAKEN_BYTES: Final = 1024
# How long the rest of a body is read and thrown away after the answer, so that the client gets to see the answer.
LINGER_S: Final = 5.0
REASONS: Final = ("slow_reader", "slow_header", "slow_body", "too_many", "header_too_large", "malformed", "idle_when_full")
# Malformed requests are counted, not logged: whoever sends them would fill the disk.
logger = logging.getLogger("setpoint.http")
logger.setLevel(logging.ERROR)


class Guard:
    """What the connections of one server share: limits, room for bodies, what was cut and why, and who is idle the longest."""

    def __init__(self, limits: ServerLimits, cut: Counter) -> None:
        self.limits = limits
        self.bodies = BodyBudget(limits.held_body_bytes, most_each_bytes=limits.max_body_bytes)
        self.connections: set[GuardedConnection] = set()
        self._idle: OrderedDict[GuardedConnection, None] = OrderedDict()
        self._cut = {reason: cut.labels(reason) for reason in REASONS}

    def protocol(self) -> type[GuardedConnection]:
        """The protocol class for a server whose connections this guards."""
        return type("Connection", (GuardedConnection,), {"guard": self})

    def count(self, reason: str) -> None:
        """A connection was cut or refused."""
        self._cut[reason].inc()

    def idle(self, connection: GuardedConnection, is_idle: bool) -> None:
        """Whether ``connection`` is between requests."""
        if is_idle:
            self._idle[connection] = None
            self._idle.move_to_end(connection)
        else:
            self._idle.pop(connection, None)

    def make_room(self) -> bool:
        """Close the connection that has been idle for longest; False if none is idle."""
        if not self._idle:
            return False
        connection, _ = self._idle.popitem(last=False)
        self.connections.discard(connection)
        connection.cut("idle_when_full")
        return True

    def sweep(self, now_s: float) -> None:
        """End whatever stands still; ``now_s`` on the event loop's clock."""
        for connection in list(self.connections):
            connection.check(now_s)

    async def keep_sweeping(self) -> None:
        """Sweep until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(SWEEP_S)
            self.sweep(clock())


def _only_health(app: ASGIApp) -> ASGIApp:
    """What a connection over the limit gets: health, and for all else a 503; then it is closed."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def last_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        if scope["type"] == "http" and scope["path"] == "/health":
            await app(scope, receive, last_send)
        else:
            await crowded().response()(scope, receive, last_send)

    return answer


class _LateCloser:
    """What an answer writes to: the transport, but that closing waits for the rest of the request's body.

    A socket closed with bytes unread is reset, and the client never sees the answer that told it to stop sending.
    """

    def __init__(self, connection: GuardedConnection) -> None:
        self._connection = connection
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing

    def close(self) -> None:
        self._connection.close_after_body()


class GuardedConnection(HttpToolsProtocol):
    """See the module. All times are the event loop's."""

    guard: ClassVar[Guard]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or make room for it, or tell it that there is none."""
        super().connection_made(transport)
        self.logger = logger
        self._in_head = True
        self._in_body = False
        self._head_bytes = 0
        self._framing_bytes = 0
        self._head_since_s: float | None = self.loop.time()
        self._linger_until_s: float | None = None
        self._last_answer = False
        self._stuck: tuple[float, int] | None = None
        self._paused = False
        self._refusal: ApiError | None = None
        self._running: RequestResponseCycle | None = None
        # Of the request that is being answered and of those in line behind it.
        self._held: deque[HeldBody] = deque()
        guard = self.guard
        if len(guard.connections) >= guard.limits.max_connections and not guard.make_room():
            self.guard.count("too_many")
            if len(self.connections) > guard.limits.max_connections + HEALTH_CONNECTIONS:
                transport.close()
                return
            self.app = _only_health(self.app)
        guard.connections.add(self)
        guard.idle(self, True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, and tell the request under way even if another was sent behind it."""
        self.guard.connections.discard(self)
        self.guard.idle(self, False)
        for held in self._held:
            held.release()
        super().connection_lost(exc)
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()

    # Headers

    def data_received(self, data: bytes) -> None:
        """Parse, with at most one byte more of a head than is allowed, and of what frames a body (chunk lengths, trailers)."""
        self.guard.idle(self, False)
        while data and not self.transport.is_closing():
            piece = data
            if self._in_head:
                if self._head_since_s is None:
                    self._head_since_s = self.loop.time()
                piece = data[: self.guard.limits.max_header_bytes + 1 - self._head_bytes]
                self._head_bytes += len(piece)
            elif self._in_body:
                piece = data[: self.guard.limits.max_header_bytes + 1] if self._framing_bytes else data
                self._framing_bytes += len(piece)
            super().data_received(piece)
            data = data[len(piece) :]
            most = self.guard.limits.max_header_bytes
            if (self._in_head and self._head_bytes > most) or (self._in_body and self._framing_bytes > most + READ_BYTES):
                self._refuse(_head_too_large(self.guard.limits), "header_too_large")

    def on_message_begin(self) -> None:
        """A request line begins."""
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; the parser turns what is raised here into an end of the connection."""
        if self._in_body:
            return  # A trailer: nobody may say afterwards whose request it was, or how soon it was wanted.
        if len(self.headers) >= MAX_HEADERS:
            self._refusal = _head_too_large(self.guard.limits)
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there: what follows is body."""
        self._in_head = False
        self._in_body = True
        self._head_bytes = self._framing_bytes = 0
        self._head_since_s = None
        if len(self.pipeline) >= MAX_PIPELINED:
            raise ValueError("too many pipelined requests")
        super().on_headers_complete()
        self.cycle.transport = _LateCloser(self)  # type: ignore[assignment]
        held = HeldBody(self.guard.bodies)
        cast(Scope, self.scope)[HELD_BODY] = held
        self._held.append(held)

    def on_body(self, body: bytes) -> None:
        """A part of the body. One that is not taken is thrown away, and who reads the body is woken to hear of it."""
        self._framing_bytes = 0
        if self.cycle.response_complete or self._held[-1].take(len(body)):
            super().on_body(body)
        else:
            self.flow.pause_reading()
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The body is there: what follows is the next head."""
        self._in_head = True
        self._in_body = False
        self._head_bytes = 0
        self._head_since_s = None
        super().on_message_complete()
        if self._linger_until_s is not None:
            self._linger_until_s = None
            if self._last_answer:
                self.transport.close()
            else:
                self._become_idle()

    def send_400_response(self, msg: str) -> None:
        """A parser's complaint, as an error object; inside another answer it would be read as part of that."""
        reason = "malformed" if self._refusal is None else "header_too_large"
        self._refuse(self._refusal or invalid(msg, None, code="invalid_http"), reason)

    def _unsupported_upgrade_warning(self) -> None:
        """The request is answered as if it had not asked for an upgrade."""

    def _refuse(self, error: ApiError, reason: str) -> None:
        self.guard.count(reason)
        if not self._answering and not self.transport.is_closing():
            self.transport.write(_raw_response(error))
        self.transport.close()

    # Answers

    @property
    def _answering(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Idle from here on, unless a body is still arriving: that is read for a while and thrown away."""
        self._forget_body()
        super().on_response_complete()
        if self.transport.is_closing() or self._answering:
            return
        if self._in_body:
            self._linger_until_s = self.loop.time() + LINGER_S
        elif self._in_head and self._head_bytes == 0:
            self.guard.idle(self, True)

    def _forget_body(self) -> None:
        """What the request just answered holds: of a body that was not asked for, the first part is still there."""
        if self._running is not None:
            self._running.body = bytearray()
        self._held.popleft().release()

    def close_after_body(self) -> None:
        """Close now, or once the request whose answer was the last has been read to its end."""
        if not self._in_body or self.transport.is_closing():
            self.transport.close()
            return
        self._last_answer = True
        self.pipeline.clear()
        self._linger_until_s = self.loop.time() + LINGER_S

    def _become_idle(self) -> None:
        self.guard.idle(self, True)
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def retire(self) -> None:
        """The server drains: an idle connection ends now, a busy one after its answer, and a new one gets to hear why."""
        if self.cycle is None:
            return
        if not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif self._in_head and self._head_bytes == 0:
            self.transport.close()

    def pause_writing(self) -> None:
        """More is unread than the transport likes to hold: whoever sends waits from here on."""
        self._paused = True
        self._stuck = (self.loop.time(), self.transport.get_write_buffer_size())
        super().pause_writing()

    def resume_writing(self) -> None:
        """The reader has caught up."""
        self._paused = False
        self._stuck = None
        super().resume_writing()

    # The sweep

    def check(self, now_s: float) -> None:
        """End the connection if it has stood still for too long."""
        limits = self.guard.limits
        if self._does_not_read(now_s):
            self.cut("slow_reader")
        elif self.transport.is_closing() or self._answering:
            return
        elif self._linger_until_s is not None and now_s > self._linger_until_s:
            self.cut("slow_body")
        elif self._in_head and self._head_since_s is not None and now_s - self._head_since_s > limits.header_timeout_s:
            if self._head_bytes:
                self._refuse(_head_too_slow(limits), "slow_header")
            else:
                self.cut("slow_header")

    def _does_not_read(self, now_s: float) -> bool:
        unread = self.transport.get_write_buffer_size()
        if unread == 0 or not (self._paused or self.transport.is_closing()):
            self._stuck = None
            return False
        if self._stuck is None or self._stuck[1] - unread >= LEAST_TAKEN_BYTES:
            self._stuck = (now_s, unread)
        return now_s - self._stuck[0] > self.guard.limits.slow_reader_s

    def cut(self, reason: str) -> None:
        """Close, and throw away what has not been taken."""
        self.guard.count(reason)
        self.transport.abort()


def _head_too_large(limits: ServerLimits) -> ApiError:
    message = f"Request line and headers together may have {limits.max_header_bytes} bytes and {MAX_HEADERS} headers."
    return ApiError(431, message, code="headers_too_large")


def _head_too_slow(limits: ServerLimits) -> ApiError:
    message = f"The request's headers did not arrive within {limits.header_timeout_s:g} s."
    return ApiError(408, message, code="request_timeout")


def _raw_response(error: ApiError) -> bytes:
    """A whole answer for a request that never became one."""
    body = json.dumps(error.body()).encode()
    lines = [
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body
