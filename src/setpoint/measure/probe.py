"""A look at the target before any load: does it answer, which model does it serve, is it setpoint's own server."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Any

from setpoint.measure.answer import refusal_text, whole_number
from setpoint.measure.exchange import ErrorKind, Exchange
from setpoint.measure.fetch import fetch
from setpoint.measure.pool import ConnectionPool
from setpoint.measure.target import Target

PROBE_TIMEOUT_S = 10.0
_NAMES_SHOWN = 5


class ProbeError(RuntimeError):
    """The target cannot be measured; the message says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a probe found. ``target`` has the model filled in; ``models`` are all ids the server offers.

    max_model_len: most tokens of prompt and answer together, ``None`` if the server does not say.
    is_setpoint: whether it offers setpoint's records. has_metrics: whether ``/metrics`` can be scraped.
    """

    target: Target
    models: tuple[str, ...]
    max_model_len: int | None
    is_setpoint: bool
    has_metrics: bool


async def discover(target: Target, timeout_s: float = PROBE_TIMEOUT_S) -> Discovery:
    """Ask the target for its models and pages; raises ``ProbeError`` if it cannot be measured as given."""
    pool = ConnectionPool(target, limit=3, connect_timeout_s=timeout_s, idle_s=timeout_s)
    try:
        await pool.resolve()
        models_page = await fetch(pool, target, "/v1/models", timeout_s)
        entries = _models(target, models_page)
        steps_page, metrics_page = await asyncio.gather(
            fetch(pool, target, f"/setpoint/steps?since={2**53}", timeout_s),
            fetch(pool, target, "/metrics", timeout_s),
        )
    finally:
        await pool.close()
    chosen = _choose(target, entries)
    return Discovery(
        target=replace(target, model=str(chosen["id"])),
        models=tuple(str(entry["id"]) for entry in entries),
        max_model_len=whole_number(chosen.get("max_model_len")),
        is_setpoint=_is_good(steps_page) and b'"columns"' in steps_page.body(),
        has_metrics=_is_good(metrics_page),
    )


def _is_good(exchange: Exchange) -> bool:
    return exchange.error is None and exchange.status == 200


def _models(target: Target, exchange: Exchange) -> list[dict[str, Any]]:
    """The model entries of ``/v1/models``, or a ``ProbeError`` that says why there are none."""
    where = f"{target.url} (GET {target.address.base_path}/v1/models)"
    if exchange.error is ErrorKind.REFUSED:
        raise ProbeError(f"{where}: connection refused. Is the server running, and is the port right?")
    if exchange.error in (ErrorKind.CONNECT_TIMEOUT, ErrorKind.TIMEOUT):
        raise ProbeError(f"{where}: {exchange.detail}. Is the address right, and does a firewall let it through?")
    if exchange.error is ErrorKind.MALFORMED:
        raise ProbeError(f"{where}: {exchange.detail}. Is it an HTTP server, and should the URL say https://?")
    if exchange.error is not None:
        raise ProbeError(f"{where}: {exchange.error}: {exchange.detail}")
    if exchange.status in (401, 403):
        raise ProbeError(f"{where}: HTTP {exchange.status}, a valid key is needed; pass it with --api-key.")
    if exchange.status == 404:
        raise ProbeError(f"{where}: HTTP 404. There is no OpenAI API under this URL; give it up to, but not including, /v1.")
    if exchange.status != 200:
        raise ProbeError(f"{where}: HTTP {exchange.status}: {refusal_text(exchange.body())}")
    try:
        page = json.loads(exchange.body())
    except ValueError:
        page = None
    data = page.get("data") if isinstance(page, dict) else None
    entries = [entry for entry in data if isinstance(entry, dict) and entry.get("id")] if isinstance(data, list) else []
    if not entries:
        raise ProbeError(f"{where}: the answer lists no model; an OpenAI-compatible server lists at least one.")
    return entries


def _choose(target: Target, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The entry of the model asked for, or the only one; raises ``ProbeError`` if that is not clear."""
    names = [str(entry["id"]) for entry in entries]
    offered = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
    if target.model:
        found = [entry for entry in entries if entry["id"] == target.model]
        if not found:
            raise ProbeError(f"model: {target.model!r} is not served at {target.url}; it offers: {offered}")
        return found[0]
    if len(entries) > 1:
        raise ProbeError(f"model: {target.url} serves several models; choose one with --model: {offered}")
    return entries[0]
