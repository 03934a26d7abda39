"""What one answer said: token times, usage, how it finished; and counts reconciled with ``usage``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

DETAIL_CHARACTERS_MAX = 300

_OUTPUT_FIELDS = ("content", "reasoning_content", "reasoning", "tool_calls", "function_call", "refusal")


@dataclass(slots=True)
class Answer:
    """The reading of one response body.

    token_times_s: arrival of each output token, one entry a token (empty if the answer was not streamed).
    output_tokens: from ``usage`` where given, else counted; ``None`` where neither is possible.
    complete: a ``finish_reason`` or ``[DONE]`` was seen (streams), or a whole answer object (no stream).
    error: an error object inside the answer, or what could not be read; empty if there was none.
    """

    streaming: bool
    token_times_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    finish_reason: str | None = None
    complete: bool = False
    error: str = ""
    unreadable: bool = False


def output_weight(choice: dict[str, Any]) -> int:
    """Tokens that one choice of one event carries: its token ids where the server sends them, else 1 if it has output.

    Text, reasoning, tool calls and refusals are output; a delta with only a role, or with empty text, is not.
    """
    token_ids = choice.get("token_ids")
    if isinstance(token_ids, list) and token_ids:
        return len(token_ids)
    delta = choice.get("delta")
    if isinstance(delta, dict):
        return int(any(delta.get(name) for name in _OUTPUT_FIELDS))
    return int(bool(choice.get("text")))


def is_silent(choice: dict[str, Any]) -> bool:
    """Whether an event without output may still stand for a token: its text may not be complete yet."""
    delta = choice.get("delta")
    return "role" not in delta if isinstance(delta, dict) else choice.get("text") == ""


def reconcile(
    times_s: NDArray[np.float64],
    usage_tokens: int | None,
    *,
    silent_s: NDArray[np.float64] | None = None,
    end_s: float | None = None,
) -> NDArray[np.float64]:
    """Token times whose number is the server's own count, where it gave one.

    times_s: one entry for each counted token; silent_s: events without text, each of which may stand for one;
    end_s: when the end of the answer arrived. Where ``usage_tokens`` is more than was counted, silent events are taken
    first, in order of time; then a single missing token is the end token, put at ``end_s``; any other surplus is spread
    evenly over the entries, the last first, as zero gaps: the tokens were in those chunks, and which of them held two
    cannot be known. Where it is less, as many entries stay, evenly chosen, the first and the last among them. A
    count of zero beside visible output is not believed.
    """
    counted = len(times_s)
    if not usage_tokens or usage_tokens == counted:
        return times_s
    if usage_tokens < counted:
        kept = np.linspace(0, counted - 1, usage_tokens).round().astype(np.int64)
        return times_s[kept]
    if silent_s is not None and silent_s.size:
        times_s = np.sort(np.concatenate([times_s, silent_s[: usage_tokens - counted]]))
        counted = len(times_s)
    if end_s is not None and (counted == 0 or usage_tokens == counted + 1):
        return np.append(times_s, np.full(usage_tokens - counted, end_s))
    if counted == 0:
        return times_s
    through = (np.arange(1, counted + 1) * usage_tokens) // counted
    return np.repeat(times_s, np.diff(through, prepend=0))


def error_text(value: Any) -> str:
    """The words of an error object ``{"error": {"message", ...}}``, in any of its usual forms; empty if it is none."""
    if not isinstance(value, dict):
        return ""
    found = value.get("error")
    if found is None and value.get("object") == "error":
        found = value
    if not found:
        return ""
    if isinstance(found, dict):
        found = found.get("message") or json.dumps(found)
    return str(found)[:DETAIL_CHARACTERS_MAX]


def whole_number(value: Any) -> int | None:
    """A count as JSON gave it, or ``None``."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def take_usage(answer: Answer, usage: Any) -> None:
    """Take the counts of a usage block into the answer."""
    if not isinstance(usage, dict):
        return
    for name, key in (("prompt_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens")):
        count = whole_number(usage.get(key))
        if count is not None:
            setattr(answer, name, count)
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict):
        answer.cached_tokens = whole_number(details.get("cached_tokens"))


def read_json_answer(body: bytes) -> Answer:
    """An answer that was not streamed: one JSON object with choices and usage."""
    answer = Answer(streaming=False)
    try:
        value = json.loads(body)
    except ValueError:
        answer.unreadable = True
        answer.error = f"the answer is not JSON: {body[:80]!r}"
        return answer
    answer.error = error_text(value)
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        answer.unreadable = not answer.error
        answer.error = answer.error or "the answer has no choices"
        return answer
    reason = choices[0].get("finish_reason")
    answer.finish_reason = str(reason) if reason else None
    answer.complete = True
    take_usage(answer, value.get("usage"))
    return answer


def refusal_text(body: bytes) -> str:
    """The words of an HTTP error body: its error object's message, or its beginning."""
    try:
        value = json.loads(body)
    except ValueError:
        return body[:DETAIL_CHARACTERS_MAX].decode("utf-8", "replace").strip()
    return error_text(value) or str(value)[:DETAIL_CHARACTERS_MAX]
