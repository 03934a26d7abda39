"""What one client may take of the server: bytes, seconds, connections, streams. Each has a bound and an option."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_MAX_BODY_BYTES = 2 * 1024 * 1024
DEFAULT_MAX_HELD_BODY_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds of one server. ``None`` means that the server sets none of its own.

    max_body_bytes: of a request's body. max_held_body_bytes: of all bodies together that are not parsed yet, answered with 503.
    max_prompt_tokens: of a prompt; the context bounds it anyway. max_header_bytes: of request line and headers together.
    header_timeout_s: from the first byte of a request (or from the connection, for the first) to the end of its headers.
    keep_alive_s: how long a connection may be idle between requests. max_connections: beyond them only ``/health`` is answered.
    slow_reader_s: how long an answer may wait for its reader to take anything. max_streams_per_key,
    max_requests_per_minute_per_key: a key's own quota, answered with 429.
    """

    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES
    max_held_body_bytes: int = DEFAULT_MAX_HELD_BODY_BYTES
    max_prompt_tokens: int | None = None
    max_header_bytes: int = 32 * 1024
    header_timeout_s: float = 10.0
    keep_alive_s: float = 75.0
    max_connections: int = 4096
    slow_reader_s: float = 30.0
    max_streams_per_key: int | None = None
    max_requests_per_minute_per_key: int | None = None

    @property
    def held_body_bytes(self) -> int:
        """What all bodies together may take: never less than one of them, or it could not be read at all."""
        return max(self.max_held_body_bytes, self.max_body_bytes)
