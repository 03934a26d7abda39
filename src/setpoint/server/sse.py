"""The bytes of a streamed answer, made to be cheap a token: all of a chunk but its text is written once a request.

JSON text is escaped to ASCII, so that no client mistakes U+2028 or U+0085 inside a token for the end of a line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quote
from typing import Final

from setpoint.engine.request import Delta

DONE: Final = "data: [DONE]\n\n"
CHAT_OBJECT: Final = "chat.completion.chunk"
TEXT_OBJECT: Final = "text_completion"
SSE_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def usage(prompt_tokens: int, output_tokens: int, cached_tokens: int) -> dict[str, object]:
    """The usage object of both APIs."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def event(body: object) -> str:
    """One server-sent event that carries JSON."""
    return f"data: {json.dumps(body, separators=(',', ':'))}\n\n"


class Chunks:
    """The events of one streamed answer, as text; the caller joins and encodes them.

    chat: chunks of ``/v1/chat/completions``, else of ``/v1/completions``. with_usage: chunks carry ``"usage": null``
    and one more at the end carries the usage, as ``stream_options.include_usage`` asks.
    """

    def __init__(self, *, answer_id: str, created: int, model: str, chat: bool, with_usage: bool) -> None:
        self._chat = chat
        self._with_usage = with_usage
        kind = CHAT_OBJECT if chat else TEXT_OBJECT
        head = f'{{"id":{quote(answer_id)},"object":"{kind}","created":{created},"model":{quote(model)},"choices":'
        self._head = f"data: {head}"
        self._tail = (',"usage":null' if with_usage else "") + "}\n\n"
        field = '"delta":{"content":' if chat else '"text":'
        self._before_text = f'{self._head}[{{"index":0,{field}'
        closing = "}" if chat else ""
        self._after_text = f'{closing},"logprobs":null,"finish_reason":null}}]{self._tail}'

    def opening(self) -> str:
        """What comes before the first token: the role, in a chat."""
        if not self._chat:
            return ""
        delta = '"delta":{"role":"assistant","content":""}'
        return f'{self._head}[{{"index":0,{delta},"logprobs":null,"finish_reason":null}}]{self._tail}'

    def deltas(self, deltas: Sequence[Delta]) -> str:
        """One event a delta, the text of the last one of all included.

        A token without text yet (an incomplete character) has its event too: clients that time tokens see every one.
        """
        before, after = self._before_text, self._after_text
        shown = (delta for delta in deltas if delta.text or delta.finish_reason is None)
        return "".join([f"{before}{quote(delta.text)}{after}" for delta in shown])

    def closing(self, finish_reason: str, counts: dict[str, object]) -> str:
        """The chunk with the finish reason, the usage where it was asked for, and ``[DONE]``."""
        content = '"delta":{}' if self._chat else '"text":""'
        choice = f'[{{"index":0,{content},"logprobs":null,"finish_reason":"{finish_reason}"}}]'
        total = f'{self._head}[],"usage":{json.dumps(counts)}}}\n\n' if self._with_usage else ""
        return f"{self._head}{choice}{self._tail}{total}{DONE}"


def failure(body: dict[str, object]) -> str:
    """An error inside a stream whose status was sent long ago: an error event, then ``[DONE]``."""
    return event(body) + DONE
