"""A lean HTTP/1.1 client connection: it stamps and keeps what it receives, and parses nothing but the framing.

The hot path (``data_received``, ``on_body``) takes one clock reading a socket read and appends to two arrays; JSON and
server-sent events are read later (``backlog``). The clock is ``time.monotonic``: uvloop's ``loop.time`` is only
refreshed once a loop turn, in whole milliseconds.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from time import monotonic
from typing import Any, cast

import httptools

from setpoint.measure.exchange import ErrorKind, Exchange

RESPONSE_BYTES_MAX = 256 << 20
_BODILESS = frozenset({204, 304})
_HUNG_UP = getattr(select, "POLLRDHUP", 0) | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)


class Connection(asyncio.Protocol):
    """One keep-alive connection that carries one exchange at a time.

    on_free: called when an answer is complete and the connection may carry the next; on_lost: when it is closed.
    """

    __slots__ = (
        "_body_bytes",
        "_exchange",
        "_hang_up",
        "_on_free",
        "_on_lost",
        "_parser",
        "_sized",
        "_stamp_s",
        "_transport",
        "idle_since_s",
    )

    def __init__(self, on_free: Callable[[Connection], None], on_lost: Callable[[Connection], None]) -> None:
        self._on_free = on_free
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._stamp_s = 0.0
        self._body_bytes = 0
        self._sized = False
        self._hang_up: select.poll | None = None
        self.idle_since_s = 0.0

    # What the pool calls.

    def send(self, exchange: Exchange) -> None:
        """Write the exchange's request; the connection must be idle."""
        assert self._exchange is None
        assert self._transport is not None
        self._exchange = exchange
        self._body_bytes = 0
        self._sized = False
        exchange.connection = self
        exchange.sent_s = monotonic()
        self._transport.write(exchange.payload)

    def is_usable(self) -> bool:
        """Whether a request can be sent on it now."""
        return self._transport is not None and not self._transport.is_closing() and self._exchange is None

    def is_alive(self) -> bool:
        """Whether it is usable and the server has not hung up, by what the system knows and the loop may not have seen."""
        if not self.is_usable() or self._transport is None:
            return False
        if self._hang_up is None:
            if not _HUNG_UP:
                return True
            self._hang_up = select.poll()
            self._hang_up.register(self._transport.get_extra_info("socket").fileno(), _HUNG_UP)
        return not self._hang_up.poll(0)

    def close(self) -> None:
        """Close an idle connection."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> Exchange | None:
        """Close at once, without ending the exchange it carries, which is returned."""
        exchange, self._exchange = self._exchange, None
        if self._transport is not None:
            self._transport.abort()
        return exchange

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not of asyncio's classes.

    def data_received(self, data: bytes) -> None:
        self._stamp_s = monotonic()
        if self._exchange is None:
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(ErrorKind.MALFORMED, f"not an HTTP/1.1 answer: {error}")

    def eof_received(self) -> bool:
        self._stamp_s = monotonic()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._parser = None
        exchange, self._exchange = self._exchange, None
        self._on_lost(self)
        if exchange is None:
            return
        now_s = monotonic()
        if exc is not None:
            exchange.end(now_s, ErrorKind.RESET, str(exc) or type(exc).__name__)
        elif exchange.headers_s is None:
            exchange.end(now_s, ErrorKind.CUT, "the server closed the connection before it answered")
        elif self._sized:
            exchange.end(now_s, ErrorKind.CUT, "the server closed the connection inside the answer")
        else:
            exchange.end(self._stamp_s)  # A body without a length ends with its connection.

    # What the HTTP parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower == b"content-length" or (lower == b"transfer-encoding" and b"chunked" in value.lower()):
            self._sized = True
        if self._exchange is not None:
            self._exchange.note_header(name, value)

    def on_headers_complete(self) -> None:
        exchange = self._exchange
        status = self._parser.get_status_code()
        if exchange is None:
            return
        if status < 200:  # An interim answer, such as 100 or 103: the final one has headers of its own.
            exchange.headers.clear()
            self._sized = False
            return
        exchange.status = status
        exchange.headers_s = self._stamp_s
        self._sized = self._sized or status in _BODILESS

    def on_body(self, body: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        exchange.chunk_times_s.append(self._stamp_s)
        exchange.chunks.append(body)
        self._body_bytes += len(body)
        if self._body_bytes > RESPONSE_BYTES_MAX:
            self._fail(ErrorKind.TOO_LARGE, f"the answer is longer than {RESPONSE_BYTES_MAX} bytes")

    def on_message_complete(self) -> None:
        exchange = self._exchange
        if exchange is None or exchange.headers_s is None:
            return  # An interim answer (1xx): the final one follows.
        self._exchange = None
        if self._parser.should_keep_alive():
            self.idle_since_s = self._stamp_s
            self._on_free(self)
        else:
            self.close()
        exchange.end(self._stamp_s)

    def _fail(self, kind: ErrorKind, detail: str) -> None:
        exchange = self.abort()
        if exchange is not None:
            exchange.end(self._stamp_s, kind, detail)
