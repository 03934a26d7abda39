"""One request over HTTP, to the end of its answer, as the batch class."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from time import monotonic
from typing import Any

from setpoint.measure.exchange import ErrorKind, Exchange
from setpoint.measure.pool import ConnectionPool
from setpoint.measure.target import Target

CONNECT_TIMEOUT_S = 10.0
IDLE_CONNECTION_S = 4.0
# Requests that setpoint's own server lets fill only what interactive ones leave; others ignore the header.
CLASS_HEADERS = {"user-agent": "setpoint-batch", "x-setpoint-class": "batch"}


class Sender:
    """Sends to one server over at most ``connections`` connections; an answer may take ``timeout_s``."""

    def __init__(self, target: Target, *, connections: int, timeout_s: float) -> None:
        target = replace(target, headers=CLASS_HEADERS | dict(target.headers))
        self._api_path = target.address.api_path
        self._head = target.header_lines("application/json") + b"content-type: application/json\r\n"
        self._timeout_s = timeout_s
        self._pool = ConnectionPool(target, limit=connections, connect_timeout_s=CONNECT_TIMEOUT_S, idle_s=IDLE_CONNECTION_S)

    async def post(self, url: str, body: Mapping[str, Any], request_id: str) -> Exchange:
        """Send and wait for the end, whatever it is; what went wrong is in the exchange."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_end(_: Exchange) -> None:
            if not ended.done():
                ended.set_result(None)

        payload = self._payload(url, body, request_id)
        exchange = Exchange(request_id=request_id, payload=payload, on_end=on_end, dispatched_s=monotonic())
        self._pool.submit(exchange)
        try:
            async with asyncio.timeout(self._timeout_s):
                await ended
        except TimeoutError:
            self._pool.fail(exchange, ErrorKind.TIMEOUT, f"no complete answer within {self._timeout_s:g} s")
        return exchange

    async def close(self) -> None:
        """Hang up on everything that is under way."""
        await self._pool.close()

    def _payload(self, url: str, body: Mapping[str, Any], request_id: str) -> bytes:
        content = json.dumps(body).encode("ascii")
        path = self._api_path + url.removeprefix("/v1")
        start = f"POST {path} HTTP/1.1\r\n".encode()
        own = f"x-request-id: {request_id}\r\ncontent-length: {len(content)}\r\n\r\n".encode()
        return start + self._head + own + content
