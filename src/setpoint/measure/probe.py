"""A look at the target before any load: does it answer, which model does it serve, is it setpoint's own server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from setpoint.measure.answer import refusal_text, whole_number
from setpoint.measure.exchange import ErrorKind, Exchange
from setpoint.measure.fetch import fetch
from setpoint.measure.metrics_text import read_page
from setpoint.measure.page_source import body_text
from setpoint.measure.pool import ConnectionPool
from setpoint.measure.server_kinds import ServerKind, spoken
from setpoint.measure.target import Target

PROBE_TIMEOUT_S = 10.0
UNLISTED = "setpoint_unlisted"
_TAKE_TOKEN_IDS = frozenset({ServerKind.SETPOINT, ServerKind.VLLM, ServerKind.SGLANG, ServerKind.LLAMACPP})
_NAMES_SHOWN = 5
_NO_SUCH_PAGE = frozenset({404, 405, 501})


class ProbeError(RuntimeError):
    """The target cannot be measured; the message says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a probe found. ``target`` has the model filled in; ``models`` are all ids the server offers, ``entries`` all that it
    says of them; both are what was asked for where the server does not list its models.

    max_model_len: most tokens of prompt and answer together, ``None`` if the server does not say.
    is_setpoint: whether it offers setpoint's records. has_metrics: whether ``/metrics`` can be scraped.
    kind: what server it is, by its metrics or by what it says of its model; ``None`` if that is not known.
    takes_token_ids: whether it is of a kind whose completions endpoint takes prompts as token ids.
    """

    target: Target
    models: tuple[str, ...]
    max_model_len: int | None
    is_setpoint: bool
    has_metrics: bool
    kind: str | None = None
    takes_token_ids: bool = False
    entries: tuple[dict[str, Any], ...] = ()
    lists_models: bool = True

    def serves(self, name: str) -> bool:
        """Whether ``name`` may be asked for, as far as the server says."""
        return not self.lists_models or entry_named(name, self.entries) is not None


async def discover(target: Target, timeout_s: float = PROBE_TIMEOUT_S) -> Discovery:
    """Ask the target for its models and pages; raises ``ProbeError`` if it cannot be measured as given."""
    pool = ConnectionPool(target, limit=4, connect_timeout_s=timeout_s, idle_s=timeout_s)
    try:
        await pool.resolve()
        models_page = await fetch(pool, target, f"{target.address.api}/models", timeout_s)
        entries = _models(target, models_page)
        chosen, models = _choose(target, entries)
        steps_page, metrics_page, props_page = await asyncio.gather(
            fetch(pool, target, f"/setpoint/steps?since={2**53}", timeout_s),
            fetch(pool, target, "/metrics", timeout_s),
            fetch(pool, target, "/props", timeout_s),
        )
    finally:
        await pool.close()
    is_setpoint = _is_good(steps_page) and b'"columns"' in steps_page.body()
    kinds = _kinds(chosen, metrics_page)
    return Discovery(
        target=replace(target, model=str(chosen["id"])),
        models=models,
        max_model_len=_context_tokens(chosen, props_page),
        is_setpoint=is_setpoint,
        has_metrics=_is_good(metrics_page),
        kind=spoken(kinds) if kinds else None,
        takes_token_ids=is_setpoint or (len(kinds) == 1 and kinds[0] in _TAKE_TOKEN_IDS),
        entries=tuple(entries),
        lists_models=not any(UNLISTED in entry for entry in entries),
    )


def _kinds(model: dict[str, Any], metrics_page: Exchange) -> tuple[ServerKind, ...]:
    """Whose metrics these are; without any, who says that it owns the model."""
    if _is_good(metrics_page):
        try:
            kinds = read_page(body_text(metrics_page)).kinds
        except ValueError:
            kinds = ()
        if kinds:
            return kinds
    return tuple(kind for kind in ServerKind if kind == model.get("owned_by"))


def _context_tokens(model: dict[str, Any], props_page: Exchange) -> int | None:
    """Most tokens of prompt and answer together, under the names vLLM and SGLang, llama.cpp, and others give it."""
    own = model.get("meta")
    candidates: list[object] = [model.get("max_model_len"), own.get("n_ctx") if isinstance(own, dict) else None]
    if _is_good(props_page):
        try:
            props = json.loads(props_page.body())
            candidates.append(props["default_generation_settings"]["n_ctx"])
        except (ValueError, KeyError, TypeError):
            pass
    candidates.append(model.get("context_length"))
    return next((count for value in candidates if (count := whole_number(value))), None)


def _is_good(exchange: Exchange) -> bool:
    return exchange.error is None and exchange.status == 200


def _models(target: Target, exchange: Exchange) -> list[dict[str, Any]]:
    """The model entries of the page of models, or a ``ProbeError`` that says why there are none."""
    where = f"{target.url} (GET {target.address.api_path}/models)"
    if exchange.error is ErrorKind.REFUSED:
        raise ProbeError(f"{where}: connection refused. Is the server running, and is the port right?")
    if exchange.error in (ErrorKind.CONNECT_TIMEOUT, ErrorKind.TIMEOUT):
        raise ProbeError(f"{where}: {exchange.detail}. Is the address right, and does a firewall let it through?")
    if exchange.error is ErrorKind.MALFORMED:
        raise ProbeError(f"{where}: {exchange.detail}. Is it an HTTP server, and should the URL say https://?")
    if exchange.error is not None:
        raise ProbeError(f"{where}: {exchange.error}: {exchange.detail}")
    if exchange.status == 403 and target.model:
        return [_unlisted(target)]  # A key may be good for completions and not for lists.
    if exchange.status in (401, 403):
        raise ProbeError(f"{where}: HTTP {exchange.status}, a valid key is needed; pass it with --api-key.")
    if exchange.status in _NO_SUCH_PAGE and target.model:
        return [_unlisted(target)]  # Not every server has this page, and the model was named.
    if exchange.status == 404:
        fix = "give it up to, but not including, /v1; or name the model with --model if the server lists none."
        raise ProbeError(f"{where}: HTTP 404. There is no OpenAI API under this URL; {fix}")
    if exchange.status != 200:
        raise ProbeError(f"{where}: HTTP {exchange.status}: {refusal_text(exchange.body())}")
    try:
        page = json.loads(exchange.body())
    except ValueError:
        page = None
    data = page.get("data") if isinstance(page, dict) else None
    entries = [entry for entry in data if isinstance(entry, dict) and entry.get("id")] if isinstance(data, list) else []
    if not entries and target.model:
        return [_unlisted(target)]
    if not entries:
        raise ProbeError(f"{where}: the answer lists no model; name the one to ask for with --model.")
    return entries


def _unlisted(target: Target) -> dict[str, Any]:
    """The entry of a model that was named and is listed nowhere."""
    return {"id": target.model, UNLISTED: True}


def entry_named(name: str, entries: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What the server lists that answers to ``name``: the model, another name of it, or a pattern that passes it on."""
    for entry in entries:
        if entry["id"] == name or name in _aliases(entry):
            return entry | {"id": name}
    patterns = [str(entry["id"]) for entry in entries if "*" in str(entry["id"])]
    return {"id": name} if any(fnmatchcase(name, pattern) for pattern in patterns) else None


def _choose(target: Target, entries: list[dict[str, Any]]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The entry of the model asked for, or the only one, and all names; raises ``ProbeError`` if that is not clear."""
    names = tuple(str(entry["id"]) for entry in entries)
    offered = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
    if target.model:
        found = entry_named(target.model, entries)
        if found is None:
            raise ProbeError(f"model: {target.model!r} is not served at {target.url}; it offers: {offered}")
        return found, names
    if len(entries) > 1:
        raise ProbeError(f"model: {target.url} serves several models; choose one with --model: {offered}")
    return entries[0], names


def _aliases(entry: dict[str, Any]) -> list[object]:
    """Other names llama.cpp's server gives the same model."""
    aliases = entry.get("aliases")
    return aliases if isinstance(aliases, list) else []
