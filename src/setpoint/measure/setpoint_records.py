"""What setpoint's own server records of each request, each step and each decision, brought onto the run's time axis.

Its pages (``/setpoint/requests``, ``/setpoint/steps``, ``/setpoint/decisions``) carry the server's clock; the page with the
shortest round trip tells how far that clock is ahead of ours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from setpoint.measure.exchange import Exchange
from setpoint.measure.page_source import body_text

if TYPE_CHECKING:
    import pyarrow as pa

REQUESTS_PATH, STEPS_PATH, DECISIONS_PATH = "/setpoint/requests", "/setpoint/steps", "/setpoint/decisions"
_TIMES = ("start_s", "end_s", "time_s")

Page = tuple[Exchange, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """The server's record of one request: waits in seconds, counts in tokens."""

    name: str
    queue_wait_s: float | None
    cached_tokens: int | None
    preemptions: int


@dataclass(frozen=True, slots=True)
class ServerRecords:
    """requests: by ``x-request-id``. steps, decisions: as ``STEP_COLUMNS`` and ``DECISION_COLUMNS``, ``candidate`` null.

    See ``ServerSide``.
    """

    requests: dict[str, ServerRequest]
    steps: pa.Table | None
    clock_error_s: float | None
    decisions: pa.Table | None = None


def read_records(
    request_pages: Sequence[Exchange],
    step_pages: Sequence[Exchange],
    decision_pages: Sequence[Exchange],
    start_s: float,
    notes: list[str],
) -> ServerRecords:
    """Read the kept pages; ``start_s`` is the start of the run on our clock. What is unreadable goes to ``notes``."""
    requests = _json_pages(REQUESTS_PATH, "requests", request_pages, notes)
    steps = _json_pages(STEPS_PATH, "columns", step_pages, notes)
    decisions = _json_pages(DECISIONS_PATH, "columns", decision_pages, notes)
    offset = _clock_offset(requests + steps + decisions)
    if offset is None:
        return ServerRecords({}, None, None)
    offset_s, error_s = offset
    named = [_server_request(entry) for _, page in requests for entry in page["requests"]]
    from setpoint.record.columns import DECISION_COLUMNS, STEP_COLUMNS  # Arrow is not needed to begin

    zero_s = offset_s + start_s
    table = _table(STEP_COLUMNS, "end_s", [page["columns"] for _, page in steps], zero_s)
    decided = _table(DECISION_COLUMNS, "time_s", [page["columns"] for _, page in decisions], zero_s)
    return ServerRecords({request.name: request for request in named}, table, error_s, decided)


def midpoint_s(exchange: Exchange) -> float:
    """The middle of the round trip of a page that came, on our clock."""
    assert exchange.sent_s is not None
    assert exchange.headers_s is not None
    return (exchange.sent_s + exchange.headers_s) / 2


def _json_pages(path: str, key: str, exchanges: Sequence[Exchange], notes: list[str]) -> list[Page]:
    pages = []
    for exchange in exchanges:
        try:
            page = json.loads(body_text(exchange))
        except ValueError:
            page = None
        if isinstance(page, dict) and key in page and isinstance(page.get("now_s"), int | float):
            pages.append((exchange, page))
        else:
            notes.append(f"{path}: a page is not as agreed (now_s, next, {key})")
    return pages


def _clock_offset(pages: list[Page]) -> tuple[float, float] | None:
    """(server clock minus client clock, bound of its error), from the page with the shortest round trip."""
    if not pages:
        return None
    exchange, page = min(pages, key=lambda entry: (entry[0].headers_s or 0.0) - (entry[0].sent_s or 0.0))
    error_s = ((exchange.headers_s or 0.0) - (exchange.sent_s or 0.0)) / 2
    return float(page["now_s"]) - midpoint_s(exchange), error_s


def _server_request(entry: dict[str, Any]) -> ServerRequest:
    scheduled_s = entry.get("first_scheduled_s")
    return ServerRequest(
        name=str(entry["name"]),
        queue_wait_s=None if scheduled_s is None else max(0.0, scheduled_s - entry["arrived_s"]),
        cached_tokens=entry.get("cached_tokens"),
        preemptions=entry.get("preemptions") or 0,
    )


def _table(schema: pa.Schema, moment: str, pages: list[dict[str, list[Any]]], zero_s: float) -> pa.Table | None:
    """Pages of columns as one table; rows before ``zero_s``, the start of the run on the server's clock, are left out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    tables = []
    for columns in pages:
        rows = len(columns.get(moment, []))
        arrays = []
        for column in schema:
            values = columns.get(column.name) or [None] * rows
            if column.name in _TIMES:
                values = [None if value is None else value - zero_s for value in values]
            elif pa.types.is_map(column.type):
                values = [None if value is None else list(value.items()) for value in values]
            arrays.append(pa.array(values, column.type))
        tables.append(pa.Table.from_arrays(arrays, schema=schema))
    if not tables:
        return None
    table = pa.concat_tables(tables)
    return table.filter(pc.greater_equal(table[moment], 0.0))
