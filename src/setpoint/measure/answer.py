"""What one answer said: token times, usage, how it finished; and counts reconciled with ``usage``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

DETAIL_CHARACTERS_MAX = 300
TOKENS_MAX = 10_000_000
"""Of one request: no model has such a context, so a count above it is a mistake of the server, and not believed."""

# What a delta or a message may hold that counts as output.
REASONING_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
OUTPUT_FIELDS = ("content", *REASONING_FIELDS, "tool_calls", "function_call", "refusal", "audio")
_BROKEN_OFF = frozenset({"abort", "error", "cancelled"})

PIECES_GAP_SHARE = 0.25
"""Events at most so much of the median gap between tokens apart may be pieces of one token."""


@dataclass(slots=True)
class Answer:
    """The reading of one response body.

    token_times_s: arrival of each output token, one entry a token (empty if the answer was not streamed).
    output_tokens: from ``usage`` where given, else counted; ``None`` where neither is possible.
    complete: a ``finish_reason`` or ``[DONE]`` was seen (streams), or a whole answer object (no stream).
    error: an error object inside the answer, or what could not be read; empty if there was none.
    reasoning_tokens: those of ``usage`` that were thought and not, or not as content, shown.
    text: the content of the first choice, only where it was asked for.
    """

    streaming: bool
    token_times_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int = 0
    finish_reason: str | None = None
    complete: bool = False
    error: str = ""
    unreadable: bool = False
    text: str = ""

    def finish(self, reason: Any) -> None:
        """Take a ``finish_reason``; one that says the server gave the answer up is an error."""
        self.finish_reason = str(reason)
        self.complete = True
        if self.finish_reason in _BROKEN_OFF:
            self.error = self.error or f"the server ended the answer with finish_reason {self.finish_reason!r}"


def shows_reasoning(choice: dict[str, Any]) -> bool:
    """Whether one choice of an event shows what the model thinks."""
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(delta.get(name) for name in REASONING_FIELDS)


def has_output(choice: dict[str, Any]) -> bool:
    """Whether one choice of an event (or of a whole answer) shows output: text, reasoning, a tool call, a refusal."""
    for name in ("delta", "message"):
        part = choice.get(name)
        if isinstance(part, dict):
            return any(part.get(name) for name in OUTPUT_FIELDS)
    return bool(choice.get("text"))


def stated_tokens(choice: dict[str, Any]) -> int:
    """How many tokens a choice says it holds, by its token ids or its log-probabilities; 0 if it does not say."""
    token_ids = choice.get("token_ids")
    if isinstance(token_ids, list) and token_ids:
        return len(token_ids)
    logprobs = choice.get("logprobs")
    if isinstance(logprobs, dict):
        for name in ("content", "tokens", "refusal"):
            entries = logprobs.get(name)
            if isinstance(entries, list) and entries:
                return len(entries)
    return 0


def output_weight(choice: dict[str, Any]) -> int:
    """Tokens that one choice of one event carries: as many as it states, else 1 if it shows output.

    A delta with only a role, or with empty text, shows none.
    """
    return stated_tokens(choice) or int(has_output(choice))


def is_silent(choice: dict[str, Any]) -> bool:
    """Whether an event without output may still stand for a token: its text may not be complete yet."""
    delta = choice.get("delta")
    return "role" not in delta if isinstance(delta, dict) else choice.get("text") == ""


def content_of(choice: dict[str, Any]) -> str:
    """The text that the next turn of a conversation repeats: the content, without reasoning and tool calls."""
    for name in ("delta", "message"):
        part = choice.get(name)
        if isinstance(part, dict):
            content = part.get("content")
            return content if isinstance(content, str) else ""
    text = choice.get("text")
    return text if isinstance(text, str) else ""


def reconcile(
    times_s: NDArray[np.float64],
    usage_tokens: int | None,
    *,
    silent_s: NDArray[np.float64] | None = None,
    end_s: float | None = None,
    end_token: bool = True,
) -> NDArray[np.float64]:
    """Token times whose number is the server's own count, where it gave one.

    times_s: one entry for each counted token; silent_s: events without text, each of which may stand for one;
    end_s: when the end of the answer arrived; end_token: whether that may have been a token (not if the answer ended by
    its length).

    Where ``usage_tokens`` is more than was counted, silent events after the first visible token are taken first, in order
    of time; a single token that is then missing is the end token, put at ``end_s``; silent events before the first visible
    token stand for tokens if there is one for each that is missing (the end token needs none), and for nothing otherwise: some
    servers begin with empty events; and any other surplus is spread evenly over the entries, the last first, as zero gaps:
    the tokens were in those chunks, and which of them held two cannot be known.
    Where it is less, entries that came together with the one before them go, as pieces of one token, the closest first
    (``PIECES_GAP_SHARE``); but the first and the last stay. Entries that came apart were seen apart: leaving one out would
    make one large gap of two, so they stay too, whatever ``usage`` says. A count of zero beside visible output is not
    believed.
    """
    counted = len(times_s)
    if not usage_tokens or usage_tokens == counted:
        return times_s
    if usage_tokens < counted:
        return _thinned(times_s, usage_tokens)
    silent = np.empty(0) if silent_s is None else silent_s
    late = silent[silent >= times_s[0]] if counted else silent
    times_s = _merged(times_s, late[: usage_tokens - counted])
    missing = usage_tokens - len(times_s)
    ending = np.array([end_s]) if end_s is not None and end_token else np.empty(0)
    if missing == 1 and ending.size:
        return np.append(times_s, ending)
    early = silent[: len(silent) - len(late)]
    if missing and counted and early.size in (missing, missing - ending.size):
        times_s = _merged(times_s, np.concatenate([early, ending])[:missing])
    if not times_s.size:
        return times_s if end_s is None else np.full(usage_tokens, end_s)
    through = (np.arange(1, len(times_s) + 1) * usage_tokens) // len(times_s)
    return np.repeat(times_s, np.diff(through, prepend=0))


def _merged(times_s: NDArray[np.float64], more_s: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sort(np.concatenate([times_s, more_s])) if more_s.size else times_s


def _thinned(times_s: NDArray[np.float64], keep: int) -> NDArray[np.float64]:
    """At least ``keep`` of the entries: the first, the last, and those that came apart from the one before them."""
    gaps_s = np.diff(times_s)
    apart_s = np.sort(gaps_s)[len(times_s) - keep :]  # As many as there are gaps between ``keep`` tokens.
    together_s = PIECES_GAP_SHARE * float(np.median(apart_s)) if apart_s.size else 0.0
    before_s = gaps_s[:-1].copy()
    before_s[-1:] = np.minimum(before_s[-1:], gaps_s[-1])  # One that the last came together with is a piece of it.
    closest = np.argsort(before_s, kind="stable")[: len(times_s) - keep]
    pieces = closest[before_s[closest] <= together_s]
    return np.delete(times_s, pieces + 1)


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
        if count is not None and count <= TOKENS_MAX:
            setattr(answer, name, count)
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict):
        cached = whole_number(details.get("cached_tokens"))
        answer.cached_tokens = cached if cached is None or cached <= TOKENS_MAX else None
    thought = usage.get("completion_tokens_details")
    if isinstance(thought, dict):
        answer.reasoning_tokens = whole_number(thought.get("reasoning_tokens")) or 0


def read_json_answer(body: bytes, *, keep_text: bool = False) -> Answer:
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
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        answer.unreadable = not answer.error
        answer.error = answer.error or "the answer has no choices"
        return answer
    answer.complete = True
    if choices[0].get("finish_reason"):
        answer.finish(choices[0]["finish_reason"])
    answer.output_tokens = sum(stated_tokens(choice) for choice in choices) or None
    take_usage(answer, value.get("usage"))
    if not answer.output_tokens:  # A count of zero beside visible output is not believed.
        answer.output_tokens = None if any(has_output(choice) for choice in choices) else 0
    if keep_text:
        answer.text = content_of(choices[0])
    return answer


def refusal_text(body: bytes) -> str:
    """The words of an HTTP error body: its error object's message, or its beginning."""
    try:
        value = json.loads(body)
    except ValueError:
        return body[:DETAIL_CHARACTERS_MAX].decode("utf-8", "replace").strip()
    return error_text(value) or str(value)[:DETAIL_CHARACTERS_MAX]
