"""The mock's behaviours: what is in the bytes, when they may come at the earliest, what the log says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mock_client import Reply, asking, exchange, post, with_mock

from setpoint.measure.mock import Behaviour, Ended, MockOptions, MockRequest
from setpoint.measure.mock.server import MockServer

TTFT_S, ITL_S, TOKENS, STALL_S = 0.03, 0.005, 10, 0.08
OPTIONS = MockOptions(ttft_s=TTFT_S, itl_s=ITL_S, stall_s=STALL_S)
WHOLE = [
    Behaviour.PLAIN,
    Behaviour.STALLED,
    Behaviour.LATE_HEADERS,
    Behaviour.EARLY_ROLE,
    Behaviour.NO_USAGE,
    Behaviour.SPLIT_EVENT,
]
BROKEN = [Behaviour.CUT, Behaviour.CUT_CLEANLY, Behaviour.RESET, Behaviour.IN_STREAM_ERROR]


def answered(behaviour: Behaviour, options: MockOptions = OPTIONS, **fields: Any) -> tuple[Reply, MockRequest]:
    """The reply to one request and what the log says of it."""
    path = "/v1/chat/completions" if "messages" in fields else "/v1/completions"

    async def use(mock: MockServer) -> tuple[Reply, MockRequest]:
        reply = await exchange(mock.url, post(asking(TOKENS, mock=behaviour, **fields), path))
        return reply, mock.log().requests[0]

    return with_mock(options, use)


def assert_not_early(request: MockRequest, due_s: np.ndarray[Any, Any]) -> None:
    assert request.begun_s is not None
    sent_s = request.token_times_s - request.begun_s
    assert len(sent_s) == len(due_s)
    assert (sent_s >= due_s - 1e-6).all()


@pytest.mark.parametrize("behaviour", WHOLE)
def test_one_token_an_event(behaviour: Behaviour) -> None:
    reply, request = answered(behaviour)
    assert reply.status == 200
    assert len(reply.texts) == TOKENS
    assert reply.events[-1] == "[DONE]"
    usage = [event["usage"] for event in reply.events[:-1] if "usage" in event]
    counted = {"prompt_tokens": 3, "completion_tokens": TOKENS, "total_tokens": 13}
    assert usage == ([] if behaviour is Behaviour.NO_USAGE else [counted])
    due_s = TTFT_S + ITL_S * np.arange(TOKENS)
    if behaviour is Behaviour.STALLED:
        due_s[TOKENS // 2 :] += STALL_S
    assert_not_early(request, due_s)
    assert (request.behaviour, request.ended, request.status) == (behaviour, Ended.COMPLETE, 200)
    begun_s = request.begun_s or 0.0
    if behaviour is Behaviour.LATE_HEADERS:
        assert request.sends_s[0] == request.token_times_s[0]
    else:
        assert request.sends_s[0] - begun_s < request.token_times_s[0] - begun_s - TTFT_S / 2


@pytest.mark.parametrize("behaviour", [Behaviour.MULTI_TOKEN, Behaviour.SEVERAL_EVENTS])
def test_chunks_of_several_tokens(behaviour: Behaviour) -> None:
    reply, request = answered(behaviour)
    assert "".join(reply.texts).split() == ["token"] * TOKENS
    assert len(reply.texts) == (3 if behaviour is Behaviour.MULTI_TOKEN else TOKENS)
    assert request.tokens == (0, 4, 4, 2)
    assert (np.diff(request.token_times_s) == 0.0).sum() == 7
    assert_not_early(request, TTFT_S + ITL_S * np.repeat([0, 4, 8], [4, 4, 2]))


@pytest.mark.parametrize("behaviour", BROKEN)
def test_stream_that_breaks_in_the_middle(behaviour: Behaviour) -> None:
    reply, request = answered(behaviour)
    assert len(request.token_times_s) == TOKENS // 2
    assert len(reply.texts) <= TOKENS // 2
    assert reply.reset == (behaviour is Behaviour.RESET)
    assert ("error" in reply.events[-2]) == (behaviour is Behaviour.IN_STREAM_ERROR)
    assert reply.data.endswith(b"\r\n0\r\n\r\n") == (behaviour in (Behaviour.CUT_CLEANLY, Behaviour.IN_STREAM_ERROR))
    assert b'"finish_reason":"length"' not in reply.data
    ends = {Behaviour.CUT: Ended.CLOSED, Behaviour.RESET: Ended.RESET}
    assert request.ended is ends.get(behaviour, Ended.COMPLETE)


@pytest.mark.parametrize("status", [429, 503, 500])
def test_refusals_say_when_to_come_again(status: int) -> None:
    reply, request = answered(Behaviour(f"http_{status}"), MockOptions(retry_after_s=1.5))
    assert reply.status == status
    assert ("retry-after: 2\r\nretry-after-ms: 1500\r\n" in reply.head) == (status != 500)
    assert (request.ended, request.status, request.begun_s) == (Ended.REFUSED, status, None)


def test_answers_that_are_not_streamed() -> None:
    for behaviour, asked_for_stream in ((Behaviour.PLAIN, False), (Behaviour.NOT_STREAMING, True)):
        reply, request = answered(behaviour, stream=asked_for_stream)
        assert "content-type: application/json" in reply.head
        assert b'"completion_tokens":10' in reply.body
        assert_not_early(request, np.full(TOKENS, TTFT_S + ITL_S * (TOKENS - 1)))


def test_chat_and_its_early_role() -> None:
    messages = [{"role": "user", "content": "a b"}, {"role": "user", "content": [{"type": "text"}]}]
    reply, _ = answered(Behaviour.EARLY_ROLE, messages=messages, max_completion_tokens=5)
    assert reply.events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert reply.events[0]["object"] == "chat.completion.chunk"
    assert len(reply.texts) == 5
    assert reply.events[-2]["usage"]["prompt_tokens"] == 3


def test_behaviours_are_dealt_by_the_number_of_the_request() -> None:
    async def use(mock: MockServer) -> list[MockRequest]:
        for number in (4, 2, 3):
            await exchange(mock.url, post(asking(1), headers=f"connection: close\r\nx-request-id: run-{number}\r\n"))
        await exchange(mock.url, post(asking(1)))
        return mock.log().requests

    options = MockOptions(ttft_s=0.0, behaviours=(Behaviour.PLAIN, Behaviour.NO_USAGE, Behaviour.HTTP_500))
    requests = with_mock(options, use)
    assert [request.request_id for request in requests] == ["run-4", "run-2", "run-3", "mock-3"]
    assert [str(request.behaviour) for request in requests] == ["no_usage", "http_500", "plain", "plain"]


def test_jitter_has_the_mean_and_the_variation_that_were_asked_for() -> None:
    async def use(mock: MockServer) -> MockRequest:
        await exchange(mock.url, post(asking(4000)))
        return mock.log().requests[0]

    # Gaps far below what a timer resolves: the sends are in bursts, their mean is still that of the clock.
    request = with_mock(MockOptions(ttft_s=0.0, itl_s=0.0001, itl_cv=0.5, seed=3), use)
    assert 0.0001 * 0.95 < (request.token_times_s[-1] - request.token_times_s[0]) / 3999 < 0.001


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "body: not JSON"),
        (b"[]", "body: not an object"),
        ({"max_tokens": 0}, "max_tokens: found 0"),
        ({"max_tokens": "7"}, "max_tokens: found '7'"),
        ({"mock": "nice"}, "mock: found 'nice'; use one of plain"),
        ({"mock": 5}, "mock: found 5"),
    ],
)
def test_bad_request(body: Any, words: str) -> None:
    async def use(mock: MockServer) -> Reply:
        return await exchange(mock.url, post(body))

    reply = with_mock(OPTIONS, use)
    assert reply.status == 400
    assert words in reply.body.decode()


def test_pages() -> None:
    async def use(mock: MockServer) -> list[Reply]:
        head = "HTTP/1.1\r\nhost: mock\r\nconnection: close\r\n\r\n"
        paths = ("/health", "/v1/models", "/mock/log?x=1", "/metrics")
        return [await exchange(mock.url, f"GET {path} {head}".encode()) for path in paths]

    health, models, log, metrics = with_mock(MockOptions(model="some-model"), use)
    assert (health.status, models.status, log.status, metrics.status) == (200, 200, 200, 404)
    assert b'"id":"some-model"' in models.body
    assert b'"requests":[]' in log.body


def test_one_connection_carries_one_request_after_the_other() -> None:
    async def use(mock: MockServer) -> Reply:
        first = post(asking(2), headers="")
        assert len((await exchange(mock.url, first + b"NOT HTTP\r\n\r\n")).data) < 400  # It closes on what is not HTTP.
        return await exchange(mock.url, post({"max_tokens": 0}, headers="") + post(asking(2)))

    reply = with_mock(OPTIONS, use)
    assert reply.data.count(b"HTTP/1.1 ") == 2
    assert reply.data.endswith(b"0\r\n\r\n")
