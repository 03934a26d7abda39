"""Reading a request's body within bounds of size, time and structure."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from setpoint.server.errors import ApiError, ClientGone, body_too_large
from setpoint.server.held_bodies import HeldBody, held_body
from setpoint.server.json_bounds import require_bounded

BODY_TIMEOUT_S = 30.0


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    """The whole body, of JSON that may be parsed on the event loop.

    Its bytes are held until the caller releases ``held_body(scope)``, or else until the answer has ended.

    Raises ``ApiError`` 413 (too large), 408 (too slow), 503 (no room beside other bodies) or 400 (too many values),
    ``ClientGone`` if the client left.
    """
    declared = Headers(scope=scope).get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > max_bytes:
        raise body_too_large(max_bytes)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            raw = await _read(receive, max_bytes, held_body(scope))
    except TimeoutError:
        message = f"The request body did not arrive within {BODY_TIMEOUT_S:.0f} s."
        raise ApiError(408, message, code="request_timeout", headers={"connection": "close"}) from None
    require_bounded(raw)
    return raw


async def _read(receive: Receive, max_bytes: int, held: HeldBody) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        held.require_whole()
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise body_too_large(max_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
