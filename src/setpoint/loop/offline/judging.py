"""What an ended HTTP exchange means for a request: an answer, an error for good, or something to try again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

from setpoint.measure.answer import refusal_text, whole_number
from setpoint.measure.exchange import ErrorKind, Exchange
from setpoint.measure.outcome import SHED_STATUSES
from setpoint.measure.retrying import BROKEN_STATUSES

ERROR_TEXT_CHARS = 4096
ANSWER_TOO_LARGE = "answer_too_large"


class Meaning(Enum):
    """ANSWERED and ERROR end a request: asked again it would end the same. REFUSED: the server did not take it; it waits as
    long as it takes. BROKEN: it came to nothing, which may be the request's own fault, so the tries are counted. LOCKED_OUT:
    the key is wrong, for every request alike.
    """

    ANSWERED = "answered"
    ERROR = "error"
    REFUSED = "refused"
    BROKEN = "broken"
    LOCKED_OUT = "locked out"


_NOT_TAKEN = frozenset({ErrorKind.REFUSED, ErrorKind.UNREACHABLE, ErrorKind.CONNECT_TIMEOUT, ErrorKind.CLIENT})


@dataclass(frozen=True, slots=True)
class Judged:
    """The meaning with what belongs into the output.

    body: the answer's JSON, or its text if it is none. code: a name for what went wrong. words: the same for people.
    """

    meaning: Meaning
    body: object = None
    code: str = ""
    words: str = ""

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of prompt and answer, by the answer's ``usage``; 0 where it does not say."""
        usage = self.body.get("usage") if isinstance(self.body, dict) else None
        if not isinstance(usage, dict):
            return 0, 0
        return whole_number(usage.get("prompt_tokens")) or 0, whole_number(usage.get("completion_tokens")) or 0


def judge(exchange: Exchange) -> Judged:
    """Judge an exchange that has ended."""
    if exchange.error is not None:
        if exchange.error is ErrorKind.TOO_LARGE:
            return Judged(Meaning.ERROR, code=ANSWER_TOO_LARGE, words=exchange.detail)
        meaning = Meaning.REFUSED if exchange.error in _NOT_TAKEN else Meaning.BROKEN
        return Judged(meaning, code=f"connection_{exchange.error.value}", words=exchange.detail)
    assert exchange.status is not None
    raw = exchange.body()
    if 200 <= exchange.status < 300:
        try:
            body = json.loads(raw, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            body = None
        if isinstance(body, dict):
            return Judged(Meaning.ANSWERED, body)
        return Judged(Meaning.BROKEN, code="malformed_answer", words=f"HTTP {exchange.status}, but no JSON object")
    body, code, said = _error_of(raw, exchange.status)
    words = f"HTTP {exchange.status}: {said}"
    if exchange.status == 401:
        return Judged(Meaning.LOCKED_OUT, body, code, words)
    if exchange.status in SHED_STATUSES:
        return Judged(Meaning.REFUSED, body, code, words)
    return Judged(Meaning.ERROR if is_final(exchange.status) else Meaning.BROKEN, body, code, words)


def is_final(status: int) -> bool:
    """Whether an error with this status would be the same again: 4xx, but for those that say to try again."""
    return 400 <= status < 500 and status not in SHED_STATUSES | BROKEN_STATUSES


def _error_of(raw: bytes, status: int) -> tuple[object, str, str]:
    """The body as JSON if it is, the error's code, and its message."""
    try:
        body = json.loads(raw, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        text = raw[:ERROR_TEXT_CHARS].decode("utf-8", "replace").strip()
        return text, f"http_{status}", text
    if body is None:
        body = "null"  # A line of the output whose response has no body would say that no answer came.
    said = refusal_text(raw)
    error = body.get("error") if isinstance(body, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return body, code if isinstance(code, str) and code else f"http_{status}", said
