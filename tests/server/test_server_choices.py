"""Several answers to one request, log-probabilities and calls of tools, over a server that echoes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from scripted_engine import ByteTokenizer, ScriptedEngine
from serving import Served, serving

from setpoint.engine.chat_template import ToolStyle
from setpoint.engine.request import Delta, FinishReason, Rejected
from setpoint.server.generation import INLINE_LOGPROBS
from setpoint.server.logprobs import token_text

TEXT = {"model": "echo", "prompt": "hello"}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(ScriptedEngine(max_model_len=2048)) as one:
        yield one


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=30) as one:
        yield one


def test_n_answers_each_with_its_seed_and_one_usage(served: Served) -> None:
    since = len(served.engine.submitted)
    reply = served.ask("POST", "/v1/completions", {**TEXT, "n": 3, "seed": 5, "temperature": 1})
    assert [(choice["index"], choice["text"]) for choice in reply.json["choices"]] == [(0, "hello"), (1, "hello"), (2, "hello")]
    assert reply.json["usage"]["prompt_tokens"] == 6
    assert reply.json["usage"]["completion_tokens"] == 15
    requests = served.engine.submitted[since:]
    assert [request.sampling.seed for request in requests] == [5, 6, 7]
    assert len({request.name for request in requests}) == 3
    assert len({request.prompt_ids for request in requests}) == 1


def test_the_prompt_is_computed_before_it_is_shared() -> None:
    with serving(ScriptedEngine(auto=False)) as served, served.open("/v1/completions", {**TEXT, "n": 3}):
        served.engine.wait_until(lambda: len(served.engine.streams) == 1)
        assert served.ask("GET", "/health").status == 200  # The others had every chance to come.
        assert len(served.engine.submitted) == 1
        served.engine.step_from_outside()
        served.engine.wait_until(lambda: len(served.engine.submitted) == 3)


def test_the_first_answer_speaks_for_all_and_the_others_are_due_from_its_token() -> None:
    """Seen by reading: a second answer was judged by the time that the first had waited, and refused after a whole prompt."""
    headers = "x-slo-ttft-ms: 5000\r\nx-slo-e2e-ms: 90000\r\n"
    with serving(ScriptedEngine(auto=False)) as served, served.open("/v1/completions", {**TEXT, "n": 3}, headers=headers):
        engine = served.engine
        engine.wait_until(lambda: len(engine.submitted) == 1)
        engine.step_from_outside()
        engine.wait_until(lambda: len(engine.submitted) == 3)
        first, *others = engine.submitted
        assert [request.answers for request in (first, *others)] == [3, 0, 0]
        assert first.sent_s is not None
        for other in others:
            assert other.sent_s is not None
            assert other.sent_s > first.sent_s
            assert other.limits.ttft_s == first.limits.ttft_s == 5.0
            assert other.limits.e2e_s == pytest.approx(90.0 - (other.sent_s - first.sent_s))


def test_several_prompts_times_n(served: Served) -> None:
    reply = served.ask("POST", "/v1/completions", {"prompt": ["ab", "cde"], "n": 2, "max_tokens": 2})
    assert [choice["text"] for choice in reply.json["choices"]] == ["ab", "ab", "cd", "cd"]
    assert [choice["index"] for choice in reply.json["choices"]] == [0, 1, 2, 3]
    assert reply.json["usage"]["prompt_tokens"] == 3 + 4


def test_streams_of_several_answers_are_told_apart(served: Served) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "n": 3, "stream": True, "stream_options": {"include_usage": True}}
    events = served.ask("POST", "/v1/chat/completions", body).events
    for index in range(3):
        own = [event["choices"][0] for event in events if event["choices"] and event["choices"][0]["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(choice["delta"].get("content", "") for choice in own) == "<user>hi<assistant>"
        assert [choice["finish_reason"] for choice in own] == [None] * (len(own) - 1) + ["stop"]
    assert events[-1]["usage"]["completion_tokens"] == 3 * 19


@pytest.mark.parametrize("stream", [False, True])
def test_one_answer_refused_refuses_the_request(stream: bool) -> None:
    class OnlyOne(ScriptedEngine):
        async def submit(self, request: Any) -> Any:
            self.refuse = Rejected("queue_full", 1.0) if self.submitted else None
            return await super().submit(request)

    with serving(OnlyOne()) as served:
        reply = served.ask("POST", "/v1/completions", {**TEXT, "n": 2, "stream": stream})
        assert (reply.status, reply.error["code"]) == (503, "server_is_overloaded")
        served.engine.wait_until(lambda: not served.engine.streams)


def test_of_several_prompts_that_are_refused_the_longest_wait_is_told() -> None:
    """Seen by reading: the first one's was, and who came back then was refused for the sake of another."""

    class Refusing(ScriptedEngine):
        async def submit(self, request: Any) -> Any:
            self.refuse = Rejected("queue_full", {"a": 1.0, "b": 7.5, "c": 2.0}[chr(request.prompt_ids[-1])])
            return await super().submit(request)

    with serving(Refusing()) as served:
        reply = served.ask("POST", "/v1/completions", {"prompt": ["a", "b", "c"]})
        assert (reply.status, reply.headers["retry-after-ms"]) == (503, "7500")


def test_one_answer_that_fails_fails_the_stream() -> None:
    with serving() as served:
        served.engine.break_after = 3
        served.engine.break_with = Delta("", (), FinishReason.ERROR, "the executor died")
        reply = served.ask("POST", "/v1/completions", {**TEXT, "n": 2, "stream": True})
        assert reply.events[-1]["error"]["message"] == "the executor died"
        served.engine.wait_until(lambda: not served.engine.streams)


def test_clients_that_leave_take_all_their_answers_with_them() -> None:
    with serving(ScriptedEngine(auto=False)) as served:
        with served.open("/v1/completions", {**TEXT, "n": 4, "stream": True}):
            served.engine.wait_until(lambda: len(served.engine.streams) == 1)
            served.engine.step_from_outside()
            served.engine.wait_until(lambda: len(served.engine.streams) == 4)
        served.engine.wait_until(lambda: not served.engine.streams)
        assert [stats.finish_reason for stats in served.engine.ended] == [FinishReason.CANCELLED] * 4


def test_logprobs_of_a_chat(client: openai.OpenAI) -> None:
    question: list[Any] = [{"role": "user", "content": "ä"}]
    whole = client.chat.completions.create(model="echo", messages=question, logprobs=True, top_logprobs=2)
    shown = whole.choices[0].logprobs
    assert shown is not None
    assert shown.content is not None
    assert bytes(byte for one in shown.content for byte in one.bytes or []).decode() == "<user>ä<assistant>"
    assert shown.content[0].token == "<"
    assert shown.content[0].logprob == -0.5
    assert [(top.token, top.logprob) for top in shown.content[0].top_logprobs] == [("<", -0.5), ("=", -1.5)]
    assert shown.content[6].token == "bytes:\\xc3"
    chunks = client.chat.completions.create(model="echo", messages=question, logprobs=True, top_logprobs=2, stream=True)
    streamed = [one for chunk in chunks if chunk.choices[0].logprobs for one in chunk.choices[0].logprobs.content or []]
    assert streamed == shown.content


def test_logprobs_of_a_long_answer_are_those_of_its_stream(client: openai.OpenAI) -> None:
    """Whole, they are written off the event loop."""
    asked: dict[str, Any] = {"model": "echo", "prompt": "abc" * INLINE_LOGPROBS, "logprobs": 1, "max_tokens": 1000}
    whole = client.completions.create(**asked).choices[0].logprobs
    assert whole is not None
    assert whole.tokens == list(asked["prompt"])
    shown = [chunk.choices[0].logprobs for chunk in client.completions.create(**asked, stream=True)]
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert getattr(whole, name) == [one for each in shown if each is not None for one in getattr(each, name)]


def test_logprobs_of_a_text(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="echo", prompt="aäb", logprobs=1)
    shown = whole.choices[0].logprobs
    assert shown is not None
    assert shown.tokens == ["a", "bytes:\\xc3", "bytes:\\xa4", "b"]
    assert shown.token_logprobs == [-0.5] * 4
    assert shown.text_offset == [0, 1, 2, 2]
    assert shown.top_logprobs == [{token: -0.5} for token in shown.tokens]
    chunks = list(client.completions.create(model="echo", prompt="aäb", logprobs=0, stream=True))
    offsets = [
        offset for chunk in chunks if chunk.choices[0].logprobs for offset in chunk.choices[0].logprobs.text_offset or []
    ]
    assert offsets == shown.text_offset
    assert client.completions.create(model="echo", prompt="a").choices[0].logprobs is None


def test_tokens_as_text() -> None:
    assert [token_text(piece) for piece in (b"a", "é".encode(), b"\xc3", b"")] == ["a", "é", "bytes:\\xc3", ""]


TOOLS: list[Any] = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
CALL = '<tool_call>\n{"name": "add", "arguments": {"x": [1, 2]}}\n</tool_call>'


def test_calls_whole_and_streamed(client: openai.OpenAI) -> None:
    question: list[Any] = [{"role": "user", "content": CALL + CALL}]
    whole = client.chat.completions.create(model="echo", messages=question, tools=TOOLS)
    choice = whole.choices[0]
    assert choice.finish_reason == "tool_calls"
    calls = [
        (call.function.name, call.function.arguments) for call in choice.message.tool_calls or [] if call.type == "function"
    ]
    assert calls == [("add", '{"x": [1, 2]}')] * 2
    assert choice.message.content == "<user><assistant>"
    chunks = list(client.chat.completions.create(model="echo", messages=question, tools=TOOLS, stream=True))
    assert len(chunks) > len(CALL)  # An event a token, whatever the call does with it.
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    for index in range(2):
        own = [delta for delta in deltas if delta.index == index]
        assert own[0].id is not None
        assert own[0].function is not None
        assert own[0].function.name == "add"
        assert "".join(delta.function.arguments or "" for delta in own if delta.function) == '{"x": [1, 2]}'
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    single = client.chat.completions.create(model="echo", messages=question, tools=TOOLS, parallel_tool_calls=False)
    assert len(single.choices[0].message.tool_calls or []) == 1


def test_without_tools_a_call_is_text(client: openai.OpenAI) -> None:
    question: list[Any] = [{"role": "user", "content": CALL}]
    for options in dict[str, Any](), dict[str, Any](tools=TOOLS, tool_choice="none"):
        choice = client.chat.completions.create(model="echo", messages=question, **options).choices[0]
        assert choice.message.content == f"<user>{CALL}<assistant>"
        assert choice.finish_reason == "stop"


def test_a_template_that_knows_no_tools_is_told_of() -> None:
    class Plain(ByteTokenizer):
        tool_style = ToolStyle.NONE

    engine = ScriptedEngine()
    engine.tokenizer = Plain()
    result = {"role": "tool", "content": "3", "tool_call_id": "c"}
    with serving(engine) as served:
        hi = {"role": "user", "content": "hi"}
        for fields, param in (({"messages": [hi], "tools": TOOLS}, "tools"), ({"messages": [hi, result]}, "messages")):
            reply = served.ask("POST", "/v1/chat/completions", fields)
            assert (reply.status, reply.error["param"], reply.error["code"]) == (400, param, "unsupported_parameter")
            assert "--chat-template" in reply.error["message"]
        without = {"messages": [hi], "tools": TOOLS, "tool_choice": "none"}
        assert served.ask("POST", "/v1/chat/completions", without).status == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "custom"}}, "tool_choice"),
        ({"tools": TOOLS * 2}, "tools"),
        ({"tools": TOOLS, "tool_choice": "required", "response_format": {"type": "json_object"}}, "response_format"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex"),
        ({"guided_json": "[1]"}, "guided_json"),
        ({"guided_json": {"type": "wrong"}}, "guided_json"),
        ({"structured_outputs": {"grammar": "start: missing"}}, "structured_outputs.grammar"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
            "response_format.json_schema.schema",
        ),
        (
            {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "x"}}}],
                "tool_choice": "required",
            },
            "tools",
        ),
    ],
)
def test_what_cannot_be_kept_is_named(served: Served, fields: dict[str, Any], param: str) -> None:
    since = len(served.engine.submitted)
    reply = served.ask("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], **fields})
    assert (reply.status, reply.error["param"]) == (400, param), reply.error
    assert len(served.engine.submitted) == since


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer"}}}},
        {"guided_json": json.dumps({"type": "integer"})},
        {"guided_choice": ["a", "b"]},
        {"guided_regex": "a+"},
        {"guided_grammar": 'root ::= "a"'},
        {"structured_outputs": {"json": {"type": "integer"}}},
        {"structured_outputs": {"json_object": True}},
    ],
)
def test_grammars_reach_the_engine(served: Served, fields: dict[str, Any]) -> None:
    assert served.ask("POST", "/v1/completions", {**TEXT, **fields}).status == 200
    assert served.engine.submitted[-1].sampling.grammar is not None
    assert served.ask("POST", "/v1/completions", {**TEXT, "response_format": {"type": "text"}}).status == 200
    assert served.engine.submitted[-1].sampling.grammar is None
