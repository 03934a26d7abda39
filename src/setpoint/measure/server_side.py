"""What the server said of itself during a run: ``/metrics`` of any known server, and setpoint's own records.

While the load runs, pages are only fetched, stamped and kept; they are parsed afterwards. A server that has none of
these pages (404) gives nulls, not errors.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from setpoint.measure.exchange import Exchange
from setpoint.measure.fetch import fetch
from setpoint.measure.metrics_text import read_metrics
from setpoint.measure.outcome import RequestOutcome
from setpoint.measure.pool import ConnectionPool
from setpoint.measure.target import Target
from setpoint.record import STEP_COLUMNS

METRICS_PERIOD_S = 1.0
RECORDS_PERIOD_S = 2.0
FETCH_TIMEOUT_S = 5.0
START_TIMEOUT_S = 0.5
NOTES_MAX = 20
PAGES_MAX = 2048
PAGES_BYTES_MAX = 512 << 20

_NEXT = re.compile(rb'"next"\s*:\s*(\d+)')
_NOT_OFFERED = frozenset({401, 403, 404, 405, 501})
_STEP_TIMES = ("start_s", "end_s")


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """The server's record of one request: waits in seconds, counts in tokens."""

    name: str
    queue_wait_s: float | None
    cached_tokens: int | None
    preemptions: int


@dataclass(slots=True)
class ServerSide:
    """The server's own account, on the run's time axis (seconds from its start).

    metrics_times_s, metrics: one entry a scrape, by the keys of ``metrics_text.MEANINGS``; ``None`` where a page lacked
    it. Counters are as scraped. requests: by ``x-request-id``. steps: as ``record.STEP_COLUMNS``, ``candidate`` null.
    clock_error_s: half the best round trip of a record page, the bound of the error of the steps' times.
    notes: what could not be read.
    """

    metrics_times_s: list[float] = field(default_factory=list)
    metrics: dict[str, list[float | None]] = field(default_factory=dict)
    requests: dict[str, ServerRequest] = field(default_factory=dict)
    steps: pa.Table | None = None
    clock_error_s: float | None = None
    notes: list[str] = field(default_factory=list)

    def peak(self, name: str, start_s: float, end_s: float) -> float | None:
        """The largest scraped value of a gauge between two times; ``None`` if there is none."""
        values = self._between(name, start_s, end_s)
        return max(values) if values else None

    def rise(self, name: str, start_s: float, end_s: float) -> float | None:
        """How much a counter rose between the scrapes around two times; ``None`` if there are fewer than two."""
        inside = self._between(name, start_s, end_s)
        before = self._between(name, -float("inf"), start_s)[-1:]
        values = before + inside
        return max(0.0, values[-1] - values[0]) if len(values) >= 2 else None

    def _between(self, name: str, start_s: float, end_s: float) -> list[float]:
        pairs = zip(self.metrics_times_s, self.metrics.get(name, []), strict=False)
        return [value for time_s, value in pairs if value is not None and start_s <= time_s < end_s]


class ServerWatch:
    """Fetches the server's pages beside the load, on connections of its own, within ``FETCH_TIMEOUT_S`` each."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._pool = ConnectionPool(target, limit=4, connect_timeout_s=FETCH_TIMEOUT_S, idle_s=4.0)
        self._tasks: list[asyncio.Task[None]] = []
        self._pages: dict[str, list[Exchange]] = {"/metrics": [], "/setpoint/requests": [], "/setpoint/steps": []}
        self._absent: set[str] = set()
        self._since = {"/setpoint/requests": 0, "/setpoint/steps": 0}
        self._bytes = 0
        self._notes: list[str] = []

    async def start(self) -> None:
        """Look once, so that counters have a beginning and old records are passed over, then keep looking."""
        await self._look(self._pages, START_TIMEOUT_S)
        for path in self._since:
            self._pages[path].clear()
        for path in self._pages.keys() - self._absent:
            period_s = METRICS_PERIOD_S if path == "/metrics" else RECORDS_PERIOD_S
            self._tasks.append(asyncio.create_task(self._keep_looking(path, period_s)))

    async def stop(self) -> None:
        """Look a last time and close the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            await self._look(self._pages)
        await self._pool.close()

    async def _keep_looking(self, path: str, period_s: float) -> None:
        while path not in self._absent:
            await asyncio.sleep(period_s)
            await self._look([path])

    async def _look(self, paths: Iterable[str], timeout_s: float = FETCH_TIMEOUT_S) -> None:
        await asyncio.gather(*(self._take(path, timeout_s) for path in paths if path not in self._absent))

    async def _take(self, path: str, timeout_s: float) -> None:
        since = self._since.get(path)
        where = path if since is None else f"{path}?since={since}"
        exchange = await fetch(self._pool, self._target, where, timeout_s)
        if exchange.error is None and exchange.status == 200:
            self._keep(path, exchange)
        elif exchange.error is None and exchange.status in _NOT_OFFERED:
            self._absent.add(path)
        elif len(self._notes) < NOTES_MAX:
            self._notes.append(f"{path}: {exchange.detail or exchange.status}")

    def _keep(self, path: str, exchange: Exchange) -> None:
        size = sum(map(len, exchange.chunks))
        pages = self._pages[path]
        if len(pages) >= PAGES_MAX or self._bytes + size > PAGES_BYTES_MAX:
            self._notes.append(f"{path}: the bound of kept pages was reached; later pages are missing")
            self._absent.add(path)
            return
        if path in self._since:
            found = _NEXT.search(exchange.body())
            if found is None:
                self._absent.add(path)
                return
            self._since[path] = int(found.group(1))
        self._bytes += size
        pages.append(exchange)

    def result(self, start_s: float) -> ServerSide:
        """Parse what was kept; ``start_s`` is the start of the run on the clock."""
        side = ServerSide(notes=self._notes)
        self._read_metrics(side, start_s)
        records = [self._json_pages(path, side) for path in ("/setpoint/requests", "/setpoint/steps")]
        offset = _clock_offset(records[0] + records[1])
        if offset is None:
            return side
        offset_s, side.clock_error_s = offset
        for _, page in records[0]:
            for entry in page["requests"]:
                request = _server_request(entry)
                side.requests[request.name] = request
        side.steps = _steps_table([page["columns"] for _, page in records[1]], offset_s + start_s)
        return side

    def _read_metrics(self, side: ServerSide, start_s: float) -> None:
        rows: list[dict[str, float]] = []
        for exchange in self._pages["/metrics"]:
            try:
                rows.append(read_metrics(exchange.body().decode("utf-8", "replace")))
            except ValueError as error:
                side.notes.append(f"/metrics: {error}")
                continue
            side.metrics_times_s.append(_midpoint_s(exchange) - start_s)
        for name in sorted({name for row in rows for name in row}):
            side.metrics[name] = [row.get(name) for row in rows]

    def _json_pages(self, path: str, side: ServerSide) -> list[tuple[Exchange, dict[str, Any]]]:
        key = "requests" if path.endswith("requests") else "columns"
        pages = []
        for exchange in self._pages[path]:
            try:
                page = json.loads(exchange.body())
            except ValueError:
                page = None
            if isinstance(page, dict) and key in page and isinstance(page.get("now_s"), int | float):
                pages.append((exchange, page))
            else:
                side.notes.append(f"{path}: a page is not as agreed (now_s, next, {key})")
        return pages


def _midpoint_s(exchange: Exchange) -> float:
    assert exchange.sent_s is not None
    assert exchange.headers_s is not None
    return (exchange.sent_s + exchange.headers_s) / 2


def _clock_offset(pages: list[tuple[Exchange, dict[str, Any]]]) -> tuple[float, float] | None:
    """(server clock minus client clock, bound of its error), from the page with the shortest round trip."""
    if not pages:
        return None
    exchange, page = min(pages, key=lambda entry: (entry[0].headers_s or 0.0) - (entry[0].sent_s or 0.0))
    error_s = ((exchange.headers_s or 0.0) - (exchange.sent_s or 0.0)) / 2
    return float(page["now_s"]) - _midpoint_s(exchange), error_s


def _server_request(entry: dict[str, Any]) -> ServerRequest:
    scheduled_s = entry.get("first_scheduled_s")
    return ServerRequest(
        name=str(entry["name"]),
        queue_wait_s=None if scheduled_s is None else max(0.0, scheduled_s - entry["arrived_s"]),
        cached_tokens=entry.get("cached_tokens"),
        preemptions=entry.get("preemptions") or 0,
    )


def _steps_table(pages: list[dict[str, list[Any]]], zero_s: float) -> pa.Table | None:
    """Pages of step columns as one table; ``zero_s`` is the start of the run on the server's clock."""
    tables = []
    for columns in pages:
        rows = len(columns.get("step", []))
        arrays = []
        for column in STEP_COLUMNS:
            values = columns.get(column.name) or [None] * rows
            if column.name in _STEP_TIMES:
                values = [None if value is None else value - zero_s for value in values]
            arrays.append(pa.array(values, column.type))
        tables.append(pa.Table.from_arrays(arrays, schema=STEP_COLUMNS))
    if not tables:
        return None
    table = pa.concat_tables(tables)
    return table.filter(pc.greater_equal(table["end_s"], 0.0))  # Earlier steps are not of this run.


def join_requests(rows: list[RequestOutcome], side: ServerSide) -> None:
    """Write queue wait and cached tokens into the rows of the same request id."""
    for row in rows:
        request = side.requests.get(row.request_id)
        if request is not None:
            row.queue_wait_s = request.queue_wait_s
            if row.cached_tokens is None:
                row.cached_tokens = request.cached_tokens
