"""One request and what came back, as raw bytes with the time at which each piece reached the socket."""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from setpoint.measure.http import Connection

_STREAM_BEGINS = (b"data:", b"event:", b"id:", b"retry:", b":")
_KEPT_HEADERS = frozenset({b"content-type", b"content-encoding", b"location", b"retry-after", b"retry-after-ms"})


class ErrorKind(StrEnum):
    """What went wrong with a request; the first word of the ``error`` column."""

    CLIENT = "client"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    CONNECT_TIMEOUT = "connect_timeout"
    TIMEOUT = "timeout"
    RESET = "reset"
    CUT = "cut"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    STATUS = "status"
    STREAM_ERROR = "stream_error"
    EMPTY = "empty"


@dataclass(slots=True, eq=False)
class Exchange:
    """One HTTP exchange. All times are ``time.monotonic`` seconds; ``None`` where it never came so far.

    payload: the whole HTTP request, ready to be written.
    dispatched_s: when the client took it up; sent_s: when its bytes were handed to the socket.
    connected_s: when the connection opened for it was ready; ``None`` if an open connection was used again.
    chunk_times_s, chunks: pieces of the body (decoded from the transfer coding) and when each was received.
    ended_s: end of the answer or of the connection; known_s: when the client knew of it, which is later where the server left
        the answer open. error: what the transport saw go wrong, if anything.
    """

    request_id: str
    payload: bytes
    on_end: Callable[[Exchange], None]
    dispatched_s: float | None = None
    connect_started_s: float | None = None
    connected_s: float | None = None
    sent_s: float | None = None
    headers_s: float | None = None
    ended_s: float | None = None
    known_s: float | None = None
    status: int | None = None
    headers: dict[bytes, bytes] = field(default_factory=dict)
    chunk_times_s: array[float] = field(default_factory=lambda: array("d"))
    chunks: list[bytes] = field(default_factory=list)
    error: ErrorKind | None = None
    detail: str = ""
    connection: Connection | None = None
    connecting: asyncio.Task[None] | None = None

    def note_header(self, name: bytes, value: bytes) -> None:
        """Keep the few headers that matter; names in lower case."""
        lower = name.lower()
        if lower in _KEPT_HEADERS:
            self.headers[lower] = value

    def end(self, now_s: float, error: ErrorKind | None = None, detail: str = "", *, known_s: float | None = None) -> None:
        """End the exchange and tell its owner; a second end changes nothing. ``known_s``: when it was known, if not then."""
        if self.ended_s is not None:
            return
        self.ended_s = now_s
        self.known_s = now_s if known_s is None else known_s
        self.error = error
        self.detail = detail
        self.connection = None
        self.connecting = None
        self.payload = b""
        self.on_end(self)

    def body(self) -> bytes:
        """The body received so far, in one piece."""
        return b"".join(self.chunks)

    def header(self, name: bytes) -> str:
        """A kept header as text, empty if absent."""
        return self.headers.get(name, b"").decode("latin-1").strip()

    @property
    def is_event_stream(self) -> bool:
        """Whether the answer is a stream of server-sent events: by its first bytes, and by its content type before them.

        Some servers call a stream plain text, and some call one JSON object a stream.
        """
        if self.status is None or not 200 <= self.status < 300:
            return False
        begin = self.chunks[0][:64].lstrip() if self.chunks else b""
        if begin.startswith((b"{", b"[")):
            return False
        return self.header(b"content-type").lower().startswith("text/event-stream") or begin.startswith(_STREAM_BEGINS)

    @property
    def retry_after_s(self) -> float | None:
        """``retry-after-ms`` or ``Retry-After``, which may be a date, in seconds of at least 0; ``None`` if absent."""
        for name, scale in ((b"retry-after-ms", 1e-3), (b"retry-after", 1.0)):
            try:
                wait_s = float(self.header(name)) * scale
            except ValueError:
                continue
            if math.isfinite(wait_s):
                return max(0.0, wait_s)
        try:
            date = parsedate_to_datetime(self.header(b"retry-after"))
        except ValueError:
            return None
        now_s = time.monotonic()
        answered_s = now_s if self.ended_s is None else self.ended_s
        return max(0.0, date.timestamp() - (time.time() - now_s + answered_s))
