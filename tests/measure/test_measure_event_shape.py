"""Counting events by their shape gives exactly what reading the JSON of each gives, for any server and any cut."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.measure.answer import Answer
from setpoint.measure.event_shape import learn_shape
from setpoint.measure.sse import StreamReader

TEXTS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ["", " word", '"', "\\", '\\"}]}\n\n', "\n\n", "é", "😀", "data: ", '"text":"', "another text", "\x7f", "\u2028"]
    ),
)


def completion(text: str, **more: Any) -> dict[str, Any]:
    return {"id": "c-1", "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": None} | more]}


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "index": 0, "finish_reason": None} | more], "usage": None}


def with_role(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"role": "assistant", "content": text}}]}


def reasoning(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": None, "reasoning_content": text}, "index": 0}]}


def text_twice(text: str) -> dict[str, Any]:
    return {"note": {"text": "before"}, "choices": [{"text": text, "index": 0}], "text": "after"}


def second_choice(text: str) -> dict[str, Any]:
    return {"choices": [{"text": text, "index": 1}]}


def message(text: str) -> dict[str, Any]:
    return {"choices": [{"text": text, "message": {"content": "x"}}]}


def token_ids(text: str) -> dict[str, Any]:
    return completion(text, token_ids=list(range(len(text) % 3)))


def logprobs(text: str) -> dict[str, Any]:
    return chat(text, logprobs={"content": [{"token": part} for part in text[:2]]})


def counted(text: str) -> dict[str, Any]:
    return completion(text) | {"usage": {"completion_tokens": len(text)}}


def tool_call(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": text}}]}}]}


MAKERS: list[Callable[[str], dict[str, Any]]] = [
    completion,
    chat,
    with_role,
    reasoning,
    text_twice,
    second_choice,
    message,
    token_ids,
    logprobs,
    counted,
    tool_call,
]
OTHERS = [
    b": ping",
    b"data: [DONE]",
    b"data: {}",
    b"data: 17",
    b"data: {broken",
    b"event: error\ndata: {}",
    b'data: {"error": {"message": "no"}}',
    b'data: {"choices": [{"text": "end", "finish_reason": "stop"}]}',
    b'data: {"choices": [], "usage": {"completion_tokens": 9, "prompt_tokens": 2}}',
    b'data: {"choices": [{"text": "\xff"}]}',
    b'id: 1\ndata: {"choices": [{"text": "a"}]}',
    b'data: {"choices":\ndata: [{"text": "a"}]}',
]


@st.composite
def runs(draw: st.DrawFn) -> list[bytes]:
    """Some events of one shape, written in one style."""
    make = draw(st.sampled_from(MAKERS))
    ensure_ascii, spaces = draw(st.booleans()), draw(st.booleans())
    separators = (", ", ": ") if spaces else (",", ":")
    head = draw(st.sampled_from([b"data: ", b"data:", b"event: message\ndata: "]))
    texts = draw(st.lists(TEXTS, min_size=1, max_size=25))
    return [
        head + json.dumps(make(text), ensure_ascii=ensure_ascii, separators=separators).encode("utf-8", "surrogatepass")
        for text in texts
    ]


STREAMS = st.lists(st.one_of(runs(), st.sampled_from(OTHERS).map(lambda one: [one])), min_size=1, max_size=6)


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({place % len(body) for place in places} | {0})
    return [body[start:stop] for start, stop in zip(edges, [*edges[1:], len(body)], strict=True)]


def read(chunks: list[bytes], *, by_shape: bool, at_once: bool) -> Answer:
    """Read chunks that were received at 0 s, 1 s, ...: after the last, or each as it comes."""
    reader = StreamReader(keep_text=True, by_shape=by_shape)
    times_s = array("d", range(len(chunks)))
    if at_once:
        return reader.finish(times_s, list(chunks))
    so_far_s: array[float] = array("d")
    so_far: list[bytes] = []
    for time_s, chunk in zip(times_s, chunks, strict=True):
        so_far_s.append(time_s)
        so_far.append(chunk)
        reader.advance(so_far_s, so_far)
    return reader.finish(so_far_s, so_far)


def facts(answer: Answer) -> tuple[object, ...]:
    return (
        answer.token_times_s.tolist(),
        answer.output_tokens,
        answer.prompt_tokens,
        answer.finish_reason,
        answer.complete,
        answer.error,
        answer.unreadable,
        answer.text,
    )


@settings(max_examples=300)
@given(STREAMS, st.lists(st.integers(0, 1 << 20), max_size=30), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_reading_by_shape_or_by_json_at_once_or_bit_by_bit_gives_the_same(
    stream: list[list[bytes]], places: list[int], newline: bytes
) -> None:
    body = b"".join(event.replace(b"\n", newline) + newline * 2 for run in stream for event in run)
    chunks = cut(body, places)
    expected = facts(read(chunks, by_shape=False, at_once=True))
    assert facts(read(chunks, by_shape=True, at_once=True)) == expected
    assert facts(read(chunks, by_shape=True, at_once=False)) == expected


@given(st.lists(TEXTS.filter(bool), min_size=9, max_size=60))
def test_text_is_put_together_as_it_was_sent(texts: list[str]) -> None:
    body = b"".join(b"data: " + json.dumps(chat(text)).encode() + b"\n\n" for text in texts) + b"data: [DONE]\n\n"
    answer = read([body], by_shape=True, at_once=True)
    assert answer.text == "".join(texts)
    assert answer.output_tokens == len(texts)


def learn(event: dict[str, Any]) -> bool:
    payload = json.dumps(event).encode()
    return learn_shape(b"data: " + payload, b"\n\n", payload, event) is not None


def test_only_events_that_mean_one_token_of_text_have_a_shape() -> None:
    assert all(learn(make("word")) for make in (completion, chat, with_role, reasoning, text_twice, second_choice))
    assert not any(learn(make("word")) for make in (message, token_ids, logprobs, counted, tool_call))
    assert not learn(completion(""))
    assert not learn(completion("word", finish_reason="stop"))
    assert not learn({"choices": []})
    assert not learn(completion("another text"))  # The text that stands in for the text while a shape is proved.


def test_shape_finds_the_texts_of_the_events_that_follow_each_other() -> None:
    def payload(text: str) -> bytes:
        return json.dumps(completion(text)).encode()

    shape = learn_shape(b"data: " + payload("x"), b"\n\n", payload("x"), completion("x"))
    assert shape is not None
    body = b"".join(b"data: " + payload(text) + b"\n\n" for text in ("a", "", 'b"', "c"))
    assert shape.texts(body, 0) == [b"a", b"", b'b\\"', b"c"]
    assert shape.texts(body + b"data: [DONE]\n\n" + body, 0) == [b"a", b"", b'b\\"', b"c"]
    assert shape.texts(body[:-1], 0) == [b"a", b"", b'b\\"']
    assert shape.texts(b": ping\n\n" + body, 0) == []
    assert shape.texts(body.replace(b"a", b"\n"), 0) == []
