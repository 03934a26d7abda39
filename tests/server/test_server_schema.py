"""Bodies: what is accepted, and the name and code of what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from setpoint.server.errors import ApiError
from setpoint.server.schema import ChatBody, TextBody, TokenizeBody, parse_body

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": [1]}'}}
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
        ("functions", [{}]),
        ("function_call", {"name": "f"}),
        ("guided_whitespace_pattern", "x"),
        ("modalities", ["text", "audio"]),
        ("continue_final_message", True),
        ("chat_template", "{{ messages }}"),
        ("skip_special_tokens", False),
        ("allowed_token_ids", [1]),
        ("prompt_logprobs", 1),
        ("min_tokens", 5),
    ],
)
def test_what_is_not_there_is_refused_by_name(field: str, value: object) -> None:
    assert refusal(chat, **{field: value}) == (field, "unsupported_parameter")


@pytest.mark.parametrize(("field", "value"), [("best_of", 2), ("echo", True), ("suffix", "x")])
def test_what_is_not_there_for_text(field: str, value: object) -> None:
    assert refusal(text, **{field: value}) == (field, "unsupported_parameter")


def test_neutral_values_pass() -> None:
    chat(n=1, logprobs=False, top_logprobs=0, tools=[], tool_choice="auto", functions=[], function_call="none")
    chat(n=None, logprobs=None, tools=None, logit_bias={}, stop=None, temperature=None, stream=None, seed=None)
    chat(skip_special_tokens=True, bad_words=[], min_tokens=0, continue_final_message=False, truncate_prompt_tokens=None)
    text(min_tokens=64, ignore_eos=True)
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
        ("n", 17, "invalid_value"),
        ("top_logprobs", 3, "invalid_value"),
        ("top_logprobs", 21, "invalid_value"),
        ("logprobs", 1, "invalid_type"),
        ("logit_bias", {"x": 1.0}, "invalid_value"),
        ("logit_bias", {"5": 101.0}, "invalid_value"),
        ("logit_bias", {str(token): 1 for token in range(1025)}, "invalid_value"),
        ("tools", [{"type": "function"}] * 129, "invalid_value"),
        ("guided_choice", [], "invalid_value"),
        ("guided_regex", 5, "invalid_type"),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "x"}}, "invalid_value"),
        ("response_format", "json", "invalid_type"),
        ("stream_options", {"include_usage": True}, "invalid_value"),
        ("model", 5, "invalid_type"),
        ("messages", [], "invalid_value"),
        ("messages", "hi", "invalid_type"),
    ],
)
def test_wrong_values_are_named(field: str, value: object, code: str) -> None:
    assert refusal(chat, **{field: value}) == (field, code)


def test_what_the_template_is_told() -> None:
    assert chat().template_variables == {}
    told = chat(reasoning_effort="low", chat_template_kwargs={"enable_thinking": False})
    assert told.template_variables == {"reasoning_effort": "low", "enable_thinking": False}
    assert refusal(chat, chat_template_kwargs={"messages": []}) == ("chat_template_kwargs", "invalid_value")


def test_tokens_that_end_an_answer() -> None:
    assert text(stop_token_ids=[5, 5, 7]).sampling(9).stop_token_ids == {5, 7}
    assert text(stop_token_ids=None).sampling(9).stop_token_ids == frozenset()


@pytest.mark.parametrize(("arguments", "shown"), [({"x": 1}, {"x": 1}), (None, {}), ('{"x": 1}', {"x": 1})])
def test_arguments_of_calls_as_clients_send_them_back(arguments: object, shown: dict[str, int]) -> None:
    call = {**CALL, "function": {"name": "f", "arguments": arguments}}
    (called,) = chat(messages=[USER, {"role": "assistant", "tool_calls": [call]}]).messages[1].tool_calls or []
    assert called.as_template_sees_it()["function"]["arguments"] == shown


def test_the_cap_is_named_as_it_was_given() -> None:
    assert (chat(max_tokens=5).cap_field, chat(max_completion_tokens=5).cap_field) == ("max_tokens", "max_completion_tokens")


@pytest.mark.parametrize(
    ("message", "param", "code"),
    [
        ({"role": "user", "content": 3}, "messages[0].content", "invalid_type"),
        ({"role": "user"}, "messages[0]", "invalid_value"),
        ({"content": "hi"}, "messages[0].role", "missing_required_parameter"),
        ({"role": "king", "content": "hi"}, "messages[0].role", "invalid_value"),
        ({"role": "function", "content": "hi"}, "messages[0].role", "unsupported_parameter"),
        ({"role": "tool", "content": "hi"}, "messages[0]", "invalid_value"),
        ({"role": "user", "content": "hi", "tool_calls": [CALL]}, "messages[0]", "invalid_value"),
        ({"role": "assistant", "tool_calls": [{}]}, "messages[0].tool_calls[0].function", "missing_required_parameter"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[0].content", "unsupported_parameter"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content", "invalid_type"),
    ],
)
def test_wrong_messages_are_named(message: object, param: str, code: str) -> None:
    assert refusal(chat, messages=[message]) == (param, code)


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ('{"x": 1}', {"x": 1}),
        ("", {}),
        ('"{\\"x\\": 1}"', {"x": 1}),
        ("[]", "[]"),
        ("not json", "not json"),
        ('{"x": "\\ud800"}', '{"x": "\\ud800"}'),
        ('{"x": ' + "[" * 5000 + "]" * 5000 + "}", '{"x": ' + "[" * 5000 + "]" * 5000 + "}"),
        ('{"x": [' + "1," * 30_000 + "1]}", '{"x": [' + "1," * 30_000 + "1]}"),
    ],
    ids=["object", "nothing", "quoted", "list", "words", "half a character", "deep", "large"],
)
def test_arguments_of_calls_are_objects_to_the_template_where_they_are_and_text_where_not(written: str, seen: object) -> None:
    """The model wrote them, so whatever they are they may come back."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": written}}
    body = chat(messages=[{"role": "assistant", "tool_calls": [call]}])
    (message,) = [each.as_template_sees_it() for each in body.messages]
    calls = message["tool_calls"]
    assert isinstance(calls, list)
    assert calls[0]["function"]["arguments"] == seen


def test_messages_as_the_template_sees_them() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = chat(messages=[{"role": "developer", "content": "rules"}, {"role": "user", "content": parts, "name": "x"}])
    assert [message.as_template_sees_it() for message in body.messages] == [
        {"role": "system", "content": "rules"},
        {"role": "user", "content": "a\nb"},
    ]


def test_calls_and_results_as_the_template_sees_them() -> None:
    result = {"role": "tool", "content": "3", "tool_call_id": "c1"}
    body = chat(messages=[USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, result])
    assert [message.as_template_sees_it() for message in body.messages[1:]] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"x": [1]}}}],
        },
        {"role": "tool", "content": "3", "tool_call_id": "c1"},
    ]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("hi", ("hi",)),
        (["hi"], ("hi",)),
        ([1, 2], ((1, 2),)),
        ([[1, 2]], ((1, 2),)),
        ([], ((),)),
        ("", ("",)),
        (["a", "b"], ("a", "b")),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_prompts(given: object, taken: object) -> None:
    assert text(prompt=given).prompt == taken


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (["a"] * 65, "invalid_value"),
        (["a", 3], "invalid_type"),
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


def test_answers_of_one_request_are_bounded() -> None:
    assert len(text(prompt=["a"] * 4, n=16).prompt) == 4
    assert refusal(text, prompt=["a"] * 5, n=16) == (None, "invalid_value")


def test_logprobs_and_bias() -> None:
    assert chat().wanted_logprobs is None
    assert chat(logprobs=True).wanted_logprobs == 0
    assert chat(logprobs=True, top_logprobs=20).wanted_logprobs == 20
    assert text(logprobs=0).wanted_logprobs == 0
    assert chat(logit_bias={"5": 1, "05": -2.5, "7": 3}).sampling(4).logit_bias == ((5, -2.5), (7, 3.0))


def test_tokenize_takes_exactly_one_source() -> None:
    for body in ({}, {"text": "a", "prompt": "b"}, {"text": "a", "messages": [USER]}):
        with pytest.raises(ApiError, match="exactly one"):
            parse_body(TokenizeBody, json.dumps(body).encode())
