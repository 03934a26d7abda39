"""llama.cpp's ``/slots`` page: how full the KV cache is, which its ``/metrics`` does not say."""

from __future__ import annotations

import json
from typing import Any

# What the tokens in a slot's part of the cache are called, newest version of the server first.
_TOKENS = ("n_prompt_tokens", "n_past")


def read_slots(page: str) -> dict[str, float]:
    """``running``, ``kv_tokens`` and ``kv_usage`` of one page; what the version does not tell is left out.

    kv_tokens: tokens held by the slots at work. kv_usage: of the fullest slot at work, its tokens / its context. Where
    slots share one cache (``--kv-unified``) that is a lower bound of the cache's own usage; the page does not say which
    it is. Raises ``ValueError`` if it is no page of slots.
    """
    slots = json.loads(page)
    if not isinstance(slots, list) or not all(isinstance(slot, dict) for slot in slots):
        raise ValueError("not a list of slots")
    at_work = [slot for slot in slots if slot.get("is_processing")]
    found: dict[str, float] = {"running": float(len(at_work))}
    tokens = [_tokens(slot) for slot in at_work]
    if all(count is not None for count in tokens):
        held = [count for count in tokens if count is not None]
        found["kv_tokens"] = float(sum(held))
        found["kv_usage"] = max((count / _context(slot) for count, slot in zip(held, at_work, strict=True)), default=0.0)
    return found


def _tokens(slot: dict[str, Any]) -> int | None:
    return next((slot[name] for name in _TOKENS if isinstance(slot.get(name), int)), None)


def _context(slot: dict[str, Any]) -> int:
    context = slot.get("n_ctx")
    return context if isinstance(context, int) and context > 0 else 1 << 31
