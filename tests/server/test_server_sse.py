"""The bytes of streams: every chunk is whole JSON whatever the text, and the closing carries what was asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.engine.request import Delta, FinishReason
from setpoint.server.sse import Chunks, failure, usage


def parsed(text: str) -> list[Any]:
    """Events as a client sees them that splits lines as widely as Python does."""
    lines = [line for line in text.splitlines() if line]
    assert all(line.startswith("data: ") for line in lines)
    bodies = [line.removeprefix("data: ") for line in lines]
    return [body if body == "[DONE]" else json.loads(body) for body in bodies]


@given(
    texts=st.lists(st.text(max_size=8), min_size=1, max_size=5),
    name=st.text(max_size=12),
    chat=st.booleans(),
    with_usage=st.booleans(),
)
def test_any_text_survives(texts: list[str], name: str, chat: bool, with_usage: bool) -> None:
    chunks = Chunks(answer_id=name, created=7, model=name, chat=chat, with_usage=with_usage)
    events = parsed(chunks.deltas([Delta(text, (1,)) for text in texts]))
    got = [event["choices"][0]["delta"]["content"] if chat else event["choices"][0]["text"] for event in events]
    assert got == texts
    assert all((event["id"], event["model"], event["created"]) == (name, name, 7) for event in events)
    assert all(("usage" in event) == with_usage for event in events)


@pytest.mark.parametrize("chat", [True, False])
def test_the_closing(chat: bool) -> None:
    chunks = Chunks(answer_id="i", created=7, model="m", chat=chat, with_usage=True)
    last, total, done = parsed(chunks.ending("length") + chunks.closing(usage(3, 2, 1)))
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["usage"] is None
    assert (total["choices"], total["usage"]["total_tokens"]) == ([], 5)
    assert done == "[DONE]"


@pytest.mark.parametrize("chat", [True, False])
def test_every_chunk_may_carry_the_usage_so_far(chat: bool) -> None:
    chunks = Chunks(answer_id="i", created=7, model="m", chat=chat, with_usage=True)
    shown = []
    for tokens in (1, 2):
        chunks.count(usage(3, tokens, 0))
        shown += parsed(chunks.deltas([Delta("x", (tokens,))]))
    assert [event["usage"]["completion_tokens"] for event in shown] == [1, 2]
    assert parsed(chunks.ending("stop"))[0]["usage"]["completion_tokens"] == 2


def test_a_last_delta_without_text_has_no_event_of_its_own() -> None:
    chunks = Chunks(answer_id="i", created=7, model="m", chat=True, with_usage=False)
    assert chunks.deltas([Delta("", (5,), FinishReason.STOP)]) == ""
    assert len(parsed(chunks.deltas([Delta("", (5,)), Delta("x", (6,), FinishReason.STOP)]))) == 2
    assert len(parsed(chunks.opening())) == 1


def test_a_failure_ends_the_stream() -> None:
    assert parsed(failure({"error": {"message": "a\nb"}})) == [{"error": {"message": "a\nb"}}, "[DONE]"]
