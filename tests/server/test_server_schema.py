"""Bodies: what is accepted, and the name and code of what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from setpoint.server.errors import ApiError
from setpoint.server.schema import ChatBody, TextBody, TokenizeBody, parse_body

USER = {"role": "user", "content": "hi"}


def chat(**fields: Any) -> ChatBody:
    return parse_body(ChatBody, json.dumps({"messages": [USER], **fields}).encode())


def text(**fields: Any) -> TextBody:
    return parse_body(TextBody, json.dumps({"prompt": "hi", **fields}).encode())


def refusal(call: Any, **fields: Any) -> tuple[str | None, str]:
    with pytest.raises(ApiError) as caught:
        call(**fields)
    assert caught.value.status == 400
    return caught.value.param, caught.value.code


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("tools", [{"type": "function"}]),
        ("tool_choice", {"type": "function"}),
        ("functions", [{}]),
        ("response_format", {"type": "json_schema", "json_schema": {}}),
        ("response_format", {"type": "json_object"}),
        ("logit_bias", {"5": 1.0}),
        ("modalities", ["text", "audio"]),
    ],
)
def test_what_is_not_there_is_refused_by_name(field: str, value: object) -> None:
    assert refusal(chat, **{field: value}) == (field, "unsupported_parameter")


@pytest.mark.parametrize(("field", "value"), [("logprobs", 0), ("best_of", 2), ("echo", True), ("suffix", "x"), ("n", 3)])
def test_what_is_not_there_for_text(field: str, value: object) -> None:
    assert refusal(text, **{field: value}) == (field, "unsupported_parameter")


def test_neutral_values_pass() -> None:
    chat(n=1, logprobs=False, top_logprobs=0, tools=[], tool_choice="auto", response_format={"type": "text"})
    chat(n=None, logprobs=None, tools=None, logit_bias={}, stop=None, temperature=None, stream=None, seed=None)
    text(best_of=1, echo=False, suffix="", logprobs=None, unknown={"any": "thing"})


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("temperature", "0.5", "invalid_type"),
        ("temperature", 2.5, "invalid_value"),
        ("temperature", True, "invalid_type"),
        ("max_tokens", 0, "invalid_value"),
        ("max_tokens", 1.5, "invalid_type"),
        ("top_p", 0, "invalid_value"),
        ("top_k", -2, "invalid_value"),
        ("stream", 1, "invalid_type"),
        ("seed", 1 << 70, "invalid_value"),
        ("stop", 3, "invalid_type"),
        ("stop", [""], "invalid_value"),
        ("stop", ["x"] * 17, "invalid_value"),
        ("n", 0, "invalid_value"),
        ("stream_options", {"include_usage": True}, "invalid_value"),
        ("model", 5, "invalid_type"),
        ("messages", [], "invalid_value"),
        ("messages", "hi", "invalid_type"),
    ],
)
def test_wrong_values_are_named(field: str, value: object, code: str) -> None:
    assert refusal(chat, **{field: value}) == (field, code)


@pytest.mark.parametrize(
    ("message", "param", "code"),
    [
        ({"role": "user", "content": 3}, "messages[0].content", "invalid_type"),
        ({"role": "user"}, "messages[0]", "invalid_value"),
        ({"content": "hi"}, "messages[0].role", "missing_required_parameter"),
        ({"role": "king", "content": "hi"}, "messages[0].role", "invalid_value"),
        ({"role": "tool", "content": "hi"}, "messages[0].role", "unsupported_parameter"),
        ({"role": "assistant", "tool_calls": [{}]}, "messages[0].tool_calls", "unsupported_parameter"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[0].content", "unsupported_parameter"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content", "invalid_type"),
    ],
)
def test_wrong_messages_are_named(message: object, param: str, code: str) -> None:
    assert refusal(chat, messages=[message]) == (param, code)


def test_messages_as_the_template_sees_them() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = chat(messages=[{"role": "developer", "content": "rules"}, {"role": "user", "content": parts, "name": "x"}])
    assert [message.as_template_sees_it() for message in body.messages] == [
        {"role": "system", "content": "rules"},
        {"role": "user", "content": "a\nb"},
    ]


@pytest.mark.parametrize(
    ("given", "taken"),
    [("hi", "hi"), (["hi"], "hi"), ([1, 2], (1, 2)), ([[1, 2]], (1, 2)), ([], ()), ("", "")],
)
def test_prompts(given: object, taken: object) -> None:
    assert text(prompt=given).prompt == taken


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (["a", "b"], "unsupported_parameter"),
        ([[1], [2]], "unsupported_parameter"),
        ([1, True], "invalid_type"),
        ([1.0], "invalid_type"),
        (None, "invalid_type"),
        ({"a": 1}, "invalid_type"),
        ([["a"]], "invalid_type"),
    ],
)
def test_wrong_prompts(given: object, code: str) -> None:
    assert refusal(text, prompt=given) == ("prompt", code)


def test_answer_tokens() -> None:
    assert text().answer_tokens == 16
    assert chat().answer_tokens is None
    assert chat(max_tokens=5).answer_tokens == 5
    assert chat(max_tokens=5, max_completion_tokens=6).answer_tokens == 6
    assert chat(top_k=-1).sampling(4).top_k == 0


def test_tokenize_takes_exactly_one_source() -> None:
    for body in ({}, {"text": "a", "prompt": "b"}, {"text": "a", "messages": [USER]}):
        with pytest.raises(ApiError, match="exactly one"):
            parse_body(TokenizeBody, json.dumps(body).encode())
