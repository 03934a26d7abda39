"""The app's edges: keys, unknown paths, wrong methods, bodies that are too large, and bodies of every kind."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted_engine import EchoStream, ScriptedEngine
from serving import CHAT, Served, serving

from setpoint.engine.request import GenerationRequest
from setpoint.server.gate import ApiKeys
from setpoint.server.limits import ServerLimits

PATHS = ["/v1/chat/completions", "/v1/completions", "/setpoint/tokenize"]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(server_limits=ServerLimits(max_body_bytes=20_000)) as one:
        yield one


def test_keys_guard_everything_but_health() -> None:
    with serving(api_keys=["one", "two"]) as served:
        assert served.ask("GET", "/health").status == 200
        for method, path in [
            ("GET", "/v1/models"),
            ("GET", "/metrics"),
            ("GET", "/setpoint/requests"),
            ("GET", "/setpoint/steps"),
            ("POST", "/v1/chat/completions"),
            ("POST", "/setpoint/tokenize"),
            ("GET", "/nowhere"),
        ]:
            for headers in (
                {},
                {"authorization": "Bearer three"},
                {"authorization": "one"},
                {"authorization": "Bearer"},
            ):
                reply = served.ask(method, path, headers=headers)
                assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
                assert reply.headers["www-authenticate"] == "Bearer"
        for key in ("one", "two"):
            assert served.ask("GET", "/v1/models", headers={"authorization": f"Bearer {key}"}).status == 200
        assert served.engine.submitted == []


def test_an_empty_key_is_no_key() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        ApiKeys([""])


def test_unknown_path_and_wrong_method(served: Served) -> None:
    reply = served.ask("POST", "/v1/nowhere", {"input": "x"})
    assert (reply.status, reply.error["code"]) == (404, "unknown_url")
    assert served.ask("GET", "/v1/models/").status == 404
    reply = served.ask("GET", "/v1/chat/completions")
    assert (reply.status, reply.error["code"], reply.headers["allow"]) == (405, "method_not_allowed", "POST")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/embeddings", "embeddings"),
        ("/v1/responses", "Responses API"),
        ("/v1/audio/speech", "audio"),
        ("/v1/batches", "batch"),
    ],
)
def test_what_is_known_and_not_there_is_refused_in_words(served: Served, path: str, words: str) -> None:
    reply = served.ask("POST", path, {"model": "echo", "input": "x"})
    assert (reply.status, reply.error["code"]) == (404, "unsupported_endpoint")
    assert words in reply.error["message"]
    assert "/v1/chat/completions" in reply.error["message"]


def test_unknown_model(served: Served) -> None:
    for path in ("/v1/models/other", "/v1/models/a/b"):
        reply = served.ask("GET", path)
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    for path in PATHS:
        reply = served.ask(
            "POST",
            path,
            {**CHAT, "prompt": "x", "model": "other"} if "chat" in path else {"prompt": "x", "model": "other"},
        )
        assert (reply.status, reply.error["param"]) == (404, "model")


def test_served_names_replace_the_engines() -> None:
    with serving(model_names=["front", "alias"]) as served:
        assert [model["id"] for model in served.ask("GET", "/v1/models").json["data"]] == ["front", "alias"]
        assert served.ask("POST", "/v1/completions", {"model": "alias", "prompt": "x"}).json["model"] == "front"
        assert served.ask("POST", "/v1/completions", {"model": "echo", "prompt": "x"}).status == 404


def test_a_body_that_is_too_large(served: Served) -> None:
    for path in PATHS:
        reply = served.ask("POST", path, raw=b"x" * 20_001)
        assert (reply.status, reply.error["code"]) == (413, "request_too_large")


def test_a_chunked_body_that_is_too_large(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as raw:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(3):
            raw.sendall(b"2000\r\n" + b"y" * 0x2000 + b"\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("raw", [b"", b"{", b"nonsense", b"[]", b"3", b'"x"', b"null", b"\xff\xfe", b"[" * 5000, b"{}"])
@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_is_not_a_request(served: Served, path: str, raw: bytes) -> None:
    reply = served.ask("POST", path, raw=raw)
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"


FIELDS = [
    "model", "messages", "prompt", "text", "stream", "stream_options", "max_tokens", "max_completion_tokens",
    "temperature", "top_p", "top_k", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "ignore_eos", "n", "logprobs", "top_logprobs", "tools", "tool_choice", "response_format",
    "logit_bias", "best_of", "echo", "suffix", "parallel_tool_calls", "structured_outputs",
    "guided_json", "guided_regex", "guided_choice", "guided_grammar",
]  # fmt: skip
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TEXT_PART = st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url"]) | ANY_JSON, "text": ANY_JSON | st.text()})
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "system", "assistant", "developer", "tool"]) | ANY_JSON,
        "content": st.text(max_size=30) | st.lists(TEXT_PART, max_size=3) | ANY_JSON,
    }
)
TOOL = st.fixed_dictionaries(
    {
        "type": st.just("function") | ANY_JSON,
        "function": st.fixed_dictionaries(
            {"name": st.sampled_from(["f", "g h"]) | ANY_JSON},
            optional={"parameters": st.just({"type": "object"}) | ANY_JSON, "strict": st.booleans()},
        ),
    }
)
NEAR_MISS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(FIELDS, ANY_JSON),
        "model": st.sampled_from(["echo", "other", None]) | ANY_JSON,
        "messages": st.lists(MESSAGE, max_size=3) | ANY_JSON,
        "prompt": st.text(max_size=30) | st.lists(st.integers(-1, 300), max_size=9) | ANY_JSON,
        "max_tokens": st.integers(-1, 40) | ANY_JSON,
        "stream": st.booleans() | ANY_JSON,
        "temperature": st.floats(-0.5, 2.5) | ANY_JSON,
        "n": st.integers(-1, 18) | ANY_JSON,
        "logprobs": st.booleans() | st.integers(-1, 6),
        "tools": st.lists(TOOL, max_size=2) | ANY_JSON,
        "tool_choice": st.sampled_from(["auto", "none", "required"]) | ANY_JSON,
        "guided_json": st.fixed_dictionaries({"type": st.sampled_from(["object", "array", "x"]) | ANY_JSON}) | ANY_JSON,
        "guided_regex": st.text(max_size=12),
        "guided_choice": st.lists(st.text(max_size=5), max_size=3),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), body=NEAR_MISS | ANY_JSON)
def test_no_json_breaks_the_server(served: Served, path: str, body: Any) -> None:
    reply = served.ask("POST", path, raw=json.dumps(body).encode())
    assert reply.status in (200, 400, 404, 413), reply.raw
    if reply.status != 200:
        assert reply.error["message"]
    served.engine.wait_until(lambda: not served.engine.streams)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), raw=st.binary(max_size=200))
def test_no_bytes_break_the_server(served: Served, path: str, raw: bytes) -> None:
    reply = served.ask("POST", path, raw=raw)
    assert reply.status == 400, reply.raw


def test_a_stray_exception_is_a_500_with_the_requests_name(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ScriptedEngine):
        async def submit(self, request: GenerationRequest) -> EchoStream:
            raise ZeroDivisionError("a bug")

    with serving(Broken()) as served, caplog.at_level(logging.ERROR, "setpoint.server"):
        reply = served.ask("POST", "/v1/completions", {"prompt": "x"}, {"x-request-id": "abc"})
        assert (reply.status, reply.error["code"]) == (500, "engine_error")
        assert "abc" in reply.error["message"]
        assert "a bug" not in reply.error["message"]
        assert reply.headers["x-request-id"] == "abc"
        assert served.ask("GET", "/health").status == 200
    assert "request abc to /v1/completions failed" in caplog.text
