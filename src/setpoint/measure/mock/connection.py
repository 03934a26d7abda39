"""One HTTP/1.1 connection of the mock: requests in, bytes out straight to the socket."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from time import monotonic
from typing import Any, Protocol, cast

import httptools

REQUEST_BYTES_MAX = 64 << 20
# SO_LINGER, switched on with no time to linger, makes the kernel send a reset on close.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Handler(Protocol):
    """What is behind the connections. A request is answered through ``connection`` and ended by ``finish`` or ``reset``."""

    def handle(self, connection: Connection, method: str, path: str, headers: dict[bytes, bytes], body: bytes) -> None:
        """A whole request is there; it was read at ``connection.received_s``."""

    def client_came(self, connection: Connection) -> None:
        """A connection is open."""

    def client_gone(self, connection: Connection) -> None:
        """The client closed the connection (or it broke), with or without a request on it."""


class Connection(asyncio.Protocol):
    """Carries one request at a time; a second one before the first is answered closes the connection."""

    __slots__ = (
        "_body",
        "_buffered",
        "_busy",
        "_descriptor",
        "_handler",
        "_headers",
        "_keeps",
        "_parser",
        "_transport",
        "_url",
        "open",
        "received_s",
    )

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._descriptor = -1
        self._buffered = False
        self._busy = False
        self._keeps = True
        self.open = False
        self.received_s = 0.0
        self.on_message_begin()

    # What the handler calls.

    def write(self, data: bytes) -> bool:
        """Send at once, past the event loop's own buffer while that is empty; returns whether the client is there."""
        transport = self._transport
        if not self.open or transport.is_closing():
            return False
        if self._buffered and transport.get_write_buffer_size() == 0:
            self._buffered = False
        if not self._buffered:
            try:
                written = os.write(self._descriptor, data)
            except BlockingIOError:
                written = 0
            except OSError:
                return False
            if written == len(data):
                return True
            self._buffered = True
            data = data[written:]
        transport.write(data)
        return True

    def finish(self) -> None:
        """The answer is complete: the connection waits for the next request, if the client keeps it."""
        self._busy = False
        if not self._keeps:
            self.close()

    def close(self) -> None:
        """Close after what was written."""
        self._busy = False
        self.open = False
        self._transport.close()

    def reset(self) -> None:
        """Reset the connection; the kernel drops what it has not delivered."""
        self._busy = False
        self.open = False
        connection = self._transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not of asyncio's classes.
        self._descriptor = self._transport.get_extra_info("socket").fileno()
        self.open = True
        self._handler.client_came(self)

    def data_received(self, data: bytes) -> None:
        self.received_s = monotonic()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._parser = None
        self._handler.client_gone(self)

    # What the HTTP parser calls.

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > REQUEST_BYTES_MAX:
            self.close()

    def on_message_complete(self) -> None:
        if self._busy or not self.open:
            self.close()
            return
        self._busy = True
        self._keeps = self._parser.should_keep_alive()
        method = self._parser.get_method().decode()
        path = self._url.partition(b"?")[0].decode("latin-1")
        self._handler.handle(self, method, path, self._headers, self._body)
