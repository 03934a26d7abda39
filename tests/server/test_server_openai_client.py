"""The official client against a real server: what it streams, completes and raises."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest
from scripted_engine import EchoStream, ScriptedEngine
from serving import Served, serving

from setpoint.engine.request import GenerationRequest, Rejected

KEY = "secret-key"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(api_keys=[KEY]) as one:
        yield one


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0, timeout=30) as one:
        yield one


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("echo", "model", "setpoint")
    assert client.models.retrieve("echo").id == "echo"


def test_chat_completes(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "grüße 🌍"}])
    choice = answer.choices[0]
    assert choice.message.content == "<user>grüße 🌍<assistant>"
    assert (choice.message.role, choice.finish_reason) == ("assistant", "stop")
    assert answer.usage is not None
    tokens = len("<user>grüße 🌍<assistant>".encode())
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (tokens, tokens)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == tokens // 2
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "echo"


def test_chat_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="echo",
        messages=[{"role": "user", "content": [{"type": "text", "text": "ä"}, {"type": "text", "text": "\u2028b"}]}],
        stream=True,
        stream_options={"include_usage": True},
        max_completion_tokens=12,
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "<user>ä\n\u2028"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_text_completes_and_streams(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="echo", prompt="hello there, how are you")
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("hello there, how", "length")
    stream = client.completions.create(model="echo", prompt=[[104, 105]], stream=True, max_tokens=9)
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "hi"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_many_async_streams(served: Served) -> None:
    async def one(client: openai.AsyncOpenAI, number: int) -> str:
        stream = await client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": f"n{number}"}], stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def many() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0) as client:
            return await asyncio.gather(*(one(client, number) for number in range(24)))

    assert asyncio.run(many()) == [f"<user>n{number}<assistant>" for number in range(24)]


def test_errors_become_the_clients_own(client: openai.OpenAI, served: Served) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="other", messages=[{"role": "user", "content": "hi"}])
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="echo", prompt="x" * 300)
    assert long.value.code == "context_length_exceeded"
    with (
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        stranger.models.list()
    assert refused.value.code == "invalid_api_key"


def test_the_client_retries_after_the_time_it_is_told() -> None:
    class OnceBusy(ScriptedEngine):
        async def submit(self, request: GenerationRequest) -> EchoStream:
            if not self.submitted:
                self.submitted.append(request)
                raise Rejected("queue_full", 0.02)
            return await super().submit(request)

    with (
        serving(OnceBusy()) as served,
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=1, timeout=30) as client,
    ):
        answer = client.completions.create(model="echo", prompt="again")
        assert answer.choices[0].text == "again"
        assert len(served.engine.submitted) == 2
