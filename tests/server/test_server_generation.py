"""The two generation endpoints on the wire: bytes, headers, what reaches the engine, and how failures look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from scripted_engine import ScriptedEngine
from serving import CHAT, Served, serving

from setpoint.engine.request import Delta, EngineFailed, FinishReason, InvalidRequest, Rejected, SamplingParams
from setpoint.policy.views import BATCH, INTERACTIVE, RequestLimits
from setpoint.server.choices import failure_of

TEXT = {"model": "echo", "prompt": "hello"}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(default_limits=RequestLimits(ttft_s=1.0, itl_s=0.1)) as one:
        yield one


def last_request(served: Served) -> Any:
    return served.engine.submitted[-1]


def test_a_whole_answer(served: Served) -> None:
    reply = served.ask("POST", "/v1/chat/completions", CHAT, {"x-request-id": "mine-1"})
    assert reply.status == 200
    body = reply.json
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "id": "chatcmpl-mine-1",
        "object": "chat.completion",
        "model": "echo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "<user>hi<assistant>", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 19,
            "completion_tokens": 19,
            "total_tokens": 38,
            "prompt_tokens_details": {"cached_tokens": 9},
        },
    }


def test_a_stream_has_one_event_a_token(served: Served) -> None:
    reply = served.ask("POST", "/v1/completions", {**TEXT, "prompt": 'a"ü\n', "stream": True})
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    texts = [event["choices"][0]["text"] for event in reply.events]
    assert texts == ["a", '"', "", "ü", "\n", ""]
    assert reply.events[-1]["choices"][0]["finish_reason"] == "stop"
    assert all("usage" not in event for event in reply.events)


def test_sampling_and_defaults_reach_the_engine(served: Served) -> None:
    served.ask("POST", "/v1/completions", TEXT)
    assert last_request(served).sampling == SamplingParams(max_tokens=16)
    assert last_request(served).streaming is False
    served.ask("POST", "/v1/chat/completions", CHAT)
    assert last_request(served).sampling == SamplingParams(max_tokens=256 - 19)
    given = {
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 7,
        "min_p": 0.1,
        "seed": -3,
        "stop": ["a", "b"],
        "presence_penalty": 1,
        "frequency_penalty": -1.5,
        "repetition_penalty": 1.25,
        "ignore_eos": True,
    }
    served.ask("POST", "/v1/completions", {**TEXT, **given, "max_tokens": 3, "user": "ignored", "stream": True})
    expected = SamplingParams(
        max_tokens=3,
        temperature=0.0,
        top_p=0.5,
        top_k=7,
        min_p=0.1,
        seed=-3,
        stop=("a", "b"),
        presence_penalty=1.0,
        frequency_penalty=-1.5,
        repetition_penalty=1.25,
        ignore_eos=True,
    )
    assert last_request(served).sampling == expected
    assert last_request(served).streaming is True


def test_headers_set_limits_and_class(served: Served) -> None:
    served.ask("POST", "/v1/completions", TEXT)
    assert last_request(served).limits == RequestLimits(ttft_s=1.0, itl_s=0.1)
    assert last_request(served).request_class == INTERACTIVE
    headers = {"x-slo-ttft-ms": "250", "x-slo-tpot-ms": "40.5", "x-slo-e2e-ms": "9000"}
    served.ask("POST", "/v1/completions", TEXT, headers)
    assert last_request(served).limits == RequestLimits(ttft_s=0.25, itl_s=0.1, tpot_s=0.0405, e2e_s=9.0)


def test_batch_work_has_only_the_limits_it_asks_for(served: Served) -> None:
    served.ask("POST", "/v1/completions", TEXT, {"x-setpoint-class": "batch"})
    assert (last_request(served).request_class, last_request(served).limits) == (BATCH, RequestLimits())
    served.ask("POST", "/v1/completions", TEXT, {"x-setpoint-class": "Batch", "x-slo-e2e-ms": "60000"})
    assert last_request(served).limits == RequestLimits(e2e_s=60.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("x-slo-ttft-ms", "soon"), ("x-slo-tpot-ms", "-1"), ("x-slo-e2e-ms", "nan"), ("x-setpoint-class", "vip")],
)
def test_a_wrong_header_is_named(served: Served, name: str, value: str) -> None:
    reply = served.ask("POST", "/v1/completions", TEXT, {name: value})
    assert (reply.status, reply.error["param"], reply.error["code"]) == (400, name, "invalid_value")


def test_the_request_id_is_echoed_or_made(served: Served) -> None:
    assert served.ask("GET", "/health", headers={"x-request-id": "r-7"}).headers["x-request-id"] == "r-7"
    served.ask("POST", "/v1/completions", TEXT, {"x-request-id": "r-8"})
    assert last_request(served).name == "r-8"
    assert len(served.ask("GET", "/nowhere").headers["x-request-id"]) == 32
    assert len(served.ask("GET", "/health", headers={"x-request-id": "two words"}).headers["x-request-id"]) == 32


def test_context_length(served: Served) -> None:
    for body in (
        {**TEXT, "prompt": "x" * 256},
        {**TEXT, "prompt": "x" * 250, "max_tokens": 6},
        {**TEXT, "prompt": "x" * 100_000},
    ):
        reply = served.ask("POST", "/v1/completions", body)
        assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
    assert served.ask("POST", "/v1/completions", {**TEXT, "prompt": "x" * 250, "max_tokens": 5}).status == 200


def test_the_template_may_refuse(served: Served) -> None:
    reply = served.ask("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "no template"}]})
    assert (reply.status, reply.error["param"]) == (400, "messages")


def test_a_long_prompt_is_encoded_off_the_loop() -> None:
    with serving(ScriptedEngine(max_model_len=20_000)) as served:
        reply = served.ask("POST", "/v1/completions", {**TEXT, "prompt": "y" * 10_000, "max_tokens": 2})
        assert reply.json["choices"][0]["text"] == "yy"
        assert reply.json["usage"]["prompt_tokens"] == 10_001


@pytest.mark.parametrize("stream", [False, True])
def test_refused_at_admission(stream: bool) -> None:
    with serving() as served:
        served.engine.refuse = Rejected("predicted_ttft 1.2 s over limit\r\nx: y", 2.345)
        reply = served.ask("POST", "/v1/completions", {**TEXT, "stream": stream})
        assert (reply.status, reply.error["code"]) == (503, "server_is_overloaded")
        assert (reply.headers["retry-after"], reply.headers["retry-after-ms"]) == ("3", "2345")
        assert reply.headers["x-setpoint-reason"] == "predicted_ttft 1.2 s over limit??x: y"
        assert "predicted_ttft" in reply.error["message"]
        served.engine.refuse = InvalidRequest("token 12 cannot be served", "prompt")
        reply = served.ask("POST", "/v1/completions", {**TEXT, "stream": stream})
        assert (reply.status, reply.error["param"]) == (400, "prompt")
        served.engine.refuse = EngineFailed("the executor died")
        reply = served.ask("POST", "/v1/completions", {**TEXT, "stream": stream})
        assert (reply.status, reply.error["code"]) == (500, "engine_error")
        assert served.ask("GET", "/health").status == 200, "the engine knows best whether it is well"
        served.engine.refuse = None
        assert served.ask("POST", "/v1/completions", {**TEXT, "stream": stream}).status == 200
        assert served.ask("GET", "/health").status == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("delta", "status", "code"),
    [
        (Delta("", (), FinishReason.SHED, "doomed", 0.5), 503, "server_is_overloaded"),
        (Delta("", (), FinishReason.CANCELLED), 503, "server_shutting_down"),
        (Delta("", (), FinishReason.ERROR, "out of memory"), 500, "engine_error"),
    ],
)
def test_a_failure_before_the_first_token_is_a_clean_status(stream: bool, delta: Delta, status: int, code: str) -> None:
    with serving() as served:
        served.engine.first = delta
        reply = served.ask("POST", "/v1/chat/completions", {**CHAT, "stream": stream})
        assert (reply.status, reply.error["code"]) == (status, code)
        if delta.retry_after_s is not None:
            assert reply.headers["retry-after-ms"] == "500"


def test_a_failure_inside_a_stream_is_an_error_event() -> None:
    with serving() as served:
        served.engine.break_after = 3
        served.engine.break_with = Delta("", (), FinishReason.ERROR, "the executor died")
        reply = served.ask("POST", "/v1/completions", {**TEXT, "stream": True})
        assert reply.status == 200
        assert "".join(event["choices"][0]["text"] for event in reply.events[:-1]) == "hel"
        assert reply.events[-1]["error"]["message"] == "the executor died"
        whole = served.ask("POST", "/v1/completions", TEXT)
        assert (whole.status, whole.error["code"]) == (500, "engine_error")


def test_no_status_is_sent_before_the_first_delta() -> None:
    with serving(ScriptedEngine(auto=False)) as served, served.open("/v1/completions", {**TEXT, "stream": True}) as raw:
        served.engine.wait_until(lambda: len(served.engine.streams) == 1)
        # A second request is answered meanwhile: the loop had every chance to write to the first.
        assert served.ask("GET", "/health").status == 200
        raw.setblocking(False)
        with pytest.raises(BlockingIOError):
            raw.recv(1)
        raw.settimeout(30)
        served.engine.step_from_outside()
        assert raw.recv(4096).startswith(b"HTTP/1.1 200")


def test_what_a_draining_engine_cuts_is_cut_for_that_reason() -> None:
    cut = Delta("", (), FinishReason.ERROR, "stopped")
    error = failure_of(cut, draining=True)
    assert error is not None
    assert (error.status, error.code) == (503, "server_shutting_down")
    assert failure_of(Delta("x", (1,), FinishReason.LENGTH), draining=True) is None
