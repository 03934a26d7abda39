"""The bytes of a streamed answer, made to be cheap a token: all of a chunk but its text is written once a request.

JSON text is escaped to ASCII, so that no client mistakes U+2028 or U+0085 inside a token for the end of a line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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


def compact(value: object) -> str:
    """JSON without blanks."""
    return json.dumps(value, separators=(",", ":"))


def event(body: object) -> str:
    """One server-sent event that carries JSON."""
    return f"data: {compact(body)}\n\n"


class Chunks:
    """The events of one streamed answer, as text; the caller joins and encodes them.

    chat: chunks of ``/v1/chat/completions``, else of ``/v1/completions``. choices: how many answers the stream carries;
    an ``index`` is below that. with_usage: chunks carry ``"usage": null`` and one more at the end carries the usage, as
    ``stream_options.include_usage`` asks.
    """

    def __init__(self, *, answer_id: str, created: int, model: str, chat: bool, with_usage: bool, choices: int = 1) -> None:
        self._chat = chat
        self._with_usage = with_usage
        kind = CHAT_OBJECT if chat else TEXT_OBJECT
        head = f'{{"id":{quote(answer_id)},"object":"{kind}","created":{created},"model":{quote(model)},"choices":'
        self._head = f"data: {head}"
        self._heads = [f'{self._head}[{{"index":{index},' for index in range(choices)]
        field = '"delta":{"content":' if chat else '"text":'
        self._before_text = [head + field for head in self._heads]
        self._end_with("null" if with_usage else None)

    def count(self, counts: dict[str, object]) -> None:
        """From the next chunk on this is the usage that they carry."""
        self._end_with(compact(counts))

    def _end_with(self, counts: str | None) -> None:
        self._tail = ("" if counts is None else f',"usage":{counts}') + "}\n\n"
        self._after_content = f',"finish_reason":null}}]{self._tail}'
        self._after_text = f'{"}" if self._chat else ""},"logprobs":null{self._after_content}'

    def opening(self, index: int = 0) -> str:
        """What comes before the first token: the role, in a chat."""
        return self.piece({"role": "assistant", "content": ""}, index) if self._chat else ""

    def deltas(self, deltas: Sequence[Delta], index: int = 0) -> str:
        """One event a delta, the text of the last one of all included.

        A token without text yet (an incomplete character) has its event too: clients that time tokens see every one.
        """
        before, after = self._before_text[index], self._after_text
        shown = (delta for delta in deltas if delta.text or delta.finish_reason is None)
        return "".join([f"{before}{quote(delta.text)}{after}" for delta in shown])

    def piece(self, content: Mapping[str, object], index: int = 0, logprobs: object = None) -> str:
        """One event of any content: the ``delta`` of a chat, else the fields of a text choice."""
        shown = compact(content)
        shown = f'"delta":{shown}' if self._chat else shown[1:-1]
        return f'{self._heads[index]}{shown},"logprobs":{compact(logprobs)}{self._after_content}'

    def ending(self, finish_reason: str, index: int = 0) -> str:
        """The chunk with a choice's finish reason."""
        content = '"delta":{}' if self._chat else '"text":""'
        return f'{self._heads[index]}{content},"logprobs":null,"finish_reason":"{finish_reason}"}}]{self._tail}'

    def closing(self, counts: dict[str, object]) -> str:
        """After the last choice's end: the usage where it was asked for, and ``[DONE]``."""
        total = f'{self._head}[],"usage":{json.dumps(counts)}}}\n\n' if self._with_usage else ""
        return total + DONE


def failure(body: dict[str, object]) -> str:
    """An error inside a stream whose status was sent long ago: an error event, then ``[DONE]``."""
    return event(body) + DONE
