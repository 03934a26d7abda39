"""Rows of a request table for tests, made from the few facts that a test is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from setpoint.record import Phase, RequestClass
from setpoint.record.columns import REQUEST_COLUMNS, STEP_COLUMNS


def row(
    intended_s: float = 0.0,
    tokens_s: Sequence[float] = (),
    ended_s: float | None = None,
    request_class: RequestClass = RequestClass.OK,
    phase: Phase = Phase.SUSTAINED,
    **fields: Any,
) -> dict[str, Any]:
    """One request: intended at ``intended_s``, its tokens at the instants ``tokens_s``; other columns by name."""
    times = list(tokens_s)
    made: dict[str, Any] = dict.fromkeys(REQUEST_COLUMNS.names)
    made |= {
        "candidate": "c",
        "request_id": f"r{intended_s}",
        "phase": str(phase),
        "intended_s": intended_s,
        "sent_s": intended_s,
        "first_token_s": times[0] if times else None,
        "last_token_s": times[-1] if times else None,
        "ended_s": ended_s if ended_s is not None else (times[-1] if times else None),
        "request_class": str(request_class),
        "streaming": True,
        "prompt_tokens": 10,
        "output_tokens": len(times),
        "token_times_s": times,
    }
    return made | fields


def table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """The rows as a request table."""
    return pa.Table.from_pylist(list(rows), schema=REQUEST_COLUMNS)


def served(count: int, ttft_s: float = 0.1, gap_s: float = 0.02, tokens: int = 5, **fields: Any) -> list[dict[str, Any]]:
    """``count`` completed streams, one a second, all alike."""
    return [row(float(at), [at + ttft_s + gap_s * k for k in range(tokens)], **fields) for at in range(count)]


def step_table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Steps from the columns named; the others are null."""
    return pa.Table.from_pylist(list(rows), schema=STEP_COLUMNS)
