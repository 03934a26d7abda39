"""What a generation request asks of the mock, read from its body."""

from __future__ import annotations

import json
from typing import Any

from setpoint.measure.mock.options import TOKENS_MAX, Behaviour
from setpoint.measure.mock.scripts import Asked

DEFAULT_TOKENS = 16


def read_asked(body: bytes, request_id: str, arrival: int, *, chat: bool) -> Asked:
    """What the body asks for; ``arrival`` counts requests. Raises ``ValueError`` naming the field and the fix."""
    try:
        fields = json.loads(body)
    except ValueError:
        raise ValueError("body: not JSON; send one JSON object") from None
    if not isinstance(fields, dict):
        raise ValueError("body: not an object; send one JSON object")
    tokens = next(
        (fields[name] for name in ("max_completion_tokens", "max_tokens") if fields.get(name) is not None), DEFAULT_TOKENS
    )
    if not isinstance(tokens, int) or not 1 <= tokens <= TOKENS_MAX:
        raise ValueError(f"max_tokens: found {tokens!r}; use 1 to {TOKENS_MAX}")
    wanted = fields.get("stream_options")
    return Asked(
        chat=chat,
        streaming=bool(fields.get("stream")),
        counts=isinstance(wanted, dict) and bool(wanted.get("include_usage")),
        tokens=tokens,
        prompt_tokens=_prompt_tokens(fields.get("messages") if chat else fields.get("prompt")),
        behaviours=_behaviours(fields.get("mock")),
        number=_number(request_id, arrival),
    )


def _number(request_id: str, arrival: int) -> int:
    """The number that ends the request's id, else its place in the order of arrival."""
    end = request_id.rpartition("-")[2]
    return int(end) if end.isdecimal() and len(end) < 18 else arrival


def _prompt_tokens(prompt: Any) -> int:
    """Token ids count as they are, of text the words."""
    if isinstance(prompt, str):
        return max(1, prompt.count(" ") + 1)
    if isinstance(prompt, list):
        if prompt and isinstance(prompt[0], int):
            return len(prompt)
        return max(1, sum(_prompt_tokens(part.get("content") if isinstance(part, dict) else part) for part in prompt))
    return 1


def _behaviours(wanted: Any) -> tuple[Behaviour, ...]:
    names = [wanted] if isinstance(wanted, str) else wanted or []
    try:
        return tuple(Behaviour(name) for name in names)
    except (TypeError, ValueError):
        raise ValueError(f"mock: found {wanted!r}; use one of {', '.join(Behaviour)}, or a list of them") from None
