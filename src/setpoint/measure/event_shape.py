"""Events that differ from one another in nothing but their text, counted without reading the JSON of each.

Most events of a stream repeat one another byte for byte around the text of the token. The bytes before and after the
text are learnt from one event that was read as JSON; further events are then recognised by comparing bytes. What is
recognised means the same as what was learnt: the text is one JSON string literal, checked as such, and that it is the
text which stands there was proved by putting another string in its place.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from setpoint.measure.answer import OUTPUT_FIELDS, is_silent, output_weight

WINDOW_BYTES = 1 << 15

_STRINGS = re.compile(
    rb'[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+',
)
_PROBE = "another text"
_PLACES_TRIED_MAX = 4


@dataclass(frozen=True, slots=True)
class EventShape:
    """What comes before and after the text in each event; the quotes and the final blank line are in it.

    silent: whether an event of this shape without text may still stand for a token; with text it is one token.
    content: whether the text is content of the first choice, not reasoning.
    """

    head: bytes
    tail: bytes
    silent: bool
    content: bool

    def texts(self, buffer: bytes, start: int) -> list[bytes]:
        """The texts, as escaped in JSON, of the events of this shape that follow each other from ``start`` on.

        Not more than ``WINDOW_BYTES`` are looked at, so that a call costs little where there are few.
        """
        if not buffer.startswith(self.head, start):
            return []
        begin = start + len(self.head)
        texts = buffer[begin : begin + WINDOW_BYTES].split(self.tail + self.head)
        rest = texts.pop()
        count = _strings(texts)
        if count < len(texts):
            rest = texts[count]
            del texts[count:]
        last, found, _ = rest.partition(self.tail)
        if found and _is_string(last):
            texts.append(last)
        return texts


def _strings(texts: list[bytes]) -> int:
    """How many of the texts, from the first on, are the inside of a JSON string."""
    if _is_string(b" ".join(texts)):  # An escape or a character cannot reach over the space.
        return len(texts)
    return next((position for position, text in enumerate(texts) if not _is_string(text)), len(texts))


def _is_string(text: bytes) -> bool:
    if not _STRINGS.fullmatch(text):
        return False
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def learn_shape(block: bytes, blank: bytes, payload: bytes, event: dict[str, Any]) -> EventShape | None:
    """The shape of an event, or ``None`` if it means more than one token of text.

    block: the event without the blank line that ended it, ``blank``. payload: its data, read as ``event``.
    """
    field = _text_field(event)
    if field is None or not block.endswith(payload) or _PROBE.encode() in payload:
        return None
    holder, name = field
    choice = event["choices"][0]
    other = {**holder, name: _PROBE}
    expected = {**event, "choices": [other if holder is choice else {**choice, "delta": other}]}
    before = len(block) - len(payload)
    key = re.compile(rb'"' + name.encode() + rb'"[ ]*:[ ]*"')
    for place, _ in zip(key.finditer(payload), range(_PLACES_TRIED_MAX), strict=False):
        text = _STRINGS.match(payload, place.end())
        if text is None or payload[text.end() : text.end() + 1] != b'"':
            continue
        head, tail = payload[: place.end()], payload[text.end() :]
        if _reads_as(head + _PROBE.encode() + tail, expected):
            silent = {**holder, name: ""}
            may_be_silent = is_silent(silent if holder is choice else {**choice, "delta": silent})
            content = name in ("content", "text") and choice.get("index") in (0, None)
            return EventShape(block[:before] + head, tail + blank, may_be_silent, content)
    return None


def _text_field(event: dict[str, Any]) -> tuple[dict[str, Any], str] | None:
    """The part of the event that holds its text, and under which name, if that text is all that it means."""
    choices = event.get("choices")
    if event.get("usage") is not None or event.get("error") or event.get("object") == "error":
        return None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        return None
    choice = choices[0]
    means_more = any(choice.get(name) for name in ("message", "finish_reason", "token_ids", "logprobs"))
    if means_more or output_weight(choice) != 1:
        return None
    holder = _holder(choice)
    names = [name for name in (OUTPUT_FIELDS if "delta" in choice else ("text",)) if holder.get(name)]
    if len(names) != 1 or not isinstance(holder[names[0]], str) or ("delta" in choice and choice.get("text")):
        return None
    return holder, names[0]


def _holder(choice: dict[str, Any]) -> dict[str, Any]:
    delta = choice.get("delta")
    return delta if isinstance(delta, dict) else choice


def _reads_as(payload: bytes, expected: dict[str, Any]) -> bool:
    try:
        return bool(json.loads(payload) == expected)
    except ValueError:
        return False
