"""One plain ``GET`` through a connection pool: for probing and for watching the server beside the load."""

from __future__ import annotations

import asyncio
from time import monotonic

from setpoint.measure.body import get_request
from setpoint.measure.exchange import ErrorKind, Exchange
from setpoint.measure.pool import ConnectionPool
from setpoint.measure.target import Target


async def fetch(pool: ConnectionPool, target: Target, path: str, timeout_s: float) -> Exchange:
    """``GET`` ``path`` and wait for the end of the exchange, whatever that is; errors are in the exchange."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_end(_: Exchange) -> None:
        if not ended.done():
            ended.set_result(None)

    exchange = Exchange(request_id="", payload=get_request(target, path), on_end=on_end, dispatched_s=monotonic())
    pool.submit(exchange)
    try:
        async with asyncio.timeout(timeout_s):
            await ended
    except TimeoutError:
        pool.fail(exchange, ErrorKind.TIMEOUT, f"no complete answer to GET {path.partition('?')[0]} within {timeout_s:g} s")
    return exchange
