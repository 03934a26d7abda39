"""What the server said of itself during a run: ``/metrics`` of any known server, setpoint's own records, GPU power.

While the load runs, pages are only fetched, stamped and kept; they are parsed afterwards. A server that has none of
these pages (404) gives nulls, not errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from setpoint.measure.outcome import RequestOutcome
from setpoint.measure.power import PowerSource
from setpoint.measure.server_account import ServerSide
from setpoint.measure.server_watch import START_TIMEOUT_S, MetricsWatch, PowerWatch, RecordsWatch, Watch
from setpoint.measure.target import Target

__all__ = ["ServerSide", "ServerWatch", "join_requests"]


class ServerWatch:
    """Fetches the server's pages beside the load, on connections of its own.

    metrics_urls: where the metrics are, if not at the target: a gateway's replicas, Dynamo's workers; what they say is
    added up. power: the exporter that tells the GPUs' power. Raises ``TargetError`` for a URL that cannot be used.
    """

    def __init__(self, target: Target, *, metrics_urls: Sequence[str] = (), power: PowerSource | None = None) -> None:
        self._model = target.model
        self._metrics = MetricsWatch(target, metrics_urls)
        self._records = RecordsWatch(target)
        self._power = PowerWatch(power) if power is not None else None
        self._watches: list[Watch] = [self._metrics, self._records]
        if self._power is not None:
            self._watches.append(self._power)
        self._tasks: list[asyncio.Task[None]] = []
        self._notes: list[str] = []

    async def start(self) -> None:
        """Look once, so that counters have a beginning and old records are passed over, then keep looking.

        Returns after the first looks, or after ``START_TIMEOUT_S`` if a page is slow: it then comes when it comes.
        """
        self._tasks = [asyncio.create_task(watch.run()) for watch in self._watches]
        with suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                await asyncio.gather(*(watch.looked_once() for watch in self._watches))

    async def stop(self) -> None:
        """Look a last time and close the connections."""
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._notes += [f"watching the server ended early: {error!r}" for error in ended if isinstance(error, Exception)]
        if self._tasks:
            await asyncio.gather(*(watch.look() for watch in self._watches if not watch.over))
        await asyncio.gather(*(source.close() for watch in self._watches for source in watch.sources))

    def result(self, start_s: float) -> ServerSide:
        """Parse what was kept; ``start_s`` is the start of the run on the clock."""
        side = ServerSide(notes=self._notes)
        self._metrics.read(side, start_s, self._model)
        self._records.read(side, start_s)
        if self._power is not None:
            self._power.read(side, start_s)
        side.notes += [note for watch in self._watches for source in watch.sources for note in source.notes()]
        return side


def join_requests(rows: list[RequestOutcome], side: ServerSide) -> None:
    """Write queue wait and cached tokens into the rows of the same request id."""
    for row in rows:
        request = side.requests.get(row.request_id)
        if request is not None:
            row.queue_wait_s = request.queue_wait_s
            if row.cached_tokens is None:
                row.cached_tokens = request.cached_tokens
