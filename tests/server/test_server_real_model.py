"""The server over the engine with the demo model, as it ships, spoken to by the official client."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import openai
import pytest

from setpoint.engine.embedded import embedded_engine
from setpoint.engine.models import ResolvedModel
from setpoint.engine.request import FinishReason
from setpoint.engine.threaded import ThreadedEngine
from setpoint.policy.configuration import ServingConfig
from setpoint.server.app import create_app
from setpoint.server.background import BackgroundServer

pytestmark = pytest.mark.model

CONFIG = ServingConfig(max_running=8, token_budget=256, kv_cache_tokens=4096)
MODEL = "smollm2-135m"
WAIT_S = 30.0
INSTRUCTION = (
    "You sort letters that arrive at a town hall. Letters about potholes, pavements, bridges and street lamps go to Roads."
    " Letters about pipes, drains, meters and floods go to Water. Letters about bills, fees and refunds go to Taxes. "
)


@dataclass(frozen=True)
class Served:
    """The server's address and the engine behind it."""

    url: str
    port: int
    engine: ThreadedEngine


@pytest.fixture(scope="module")
def served(demo_model: ResolvedModel) -> Iterator[Served]:
    engine = embedded_engine(demo_model, CONFIG)
    with BackgroundServer(create_app(engine)) as server:
        yield Served(server.url, server.port, engine)


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=WAIT_S) as one:
        yield one


@pytest.fixture(autouse=True)
def _nothing_is_left(served: Served) -> Iterator[None]:
    """Whatever a test did, the engine is empty a moment later."""
    yield
    eventually(lambda: holds_nothing(served.engine))


def eventually(true: Callable[[], bool]) -> None:
    """Look until ``true()`` holds, ``WAIT_S`` seconds at most."""
    deadline_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline_s, "the engine never came to the state waited for"
        time.sleep(0.005)


def holds_nothing(engine: ThreadedEngine) -> bool:
    """No request is in the engine and no KV block is taken."""
    gauges = engine.gauges()
    return gauges.running == gauges.waiting == gauges.kv_used_blocks == 0


def ends(served: Served, since: int) -> list[FinishReason]:
    return [stats.finish_reason for stats in served.engine.ended_requests(since)[0]]


def test_chat_completes_greedily_and_always_the_same(client: openai.OpenAI) -> None:
    answers = [
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            temperature=0,
            max_tokens=24,
        )
        for _ in range(2)
    ]
    text = answers[0].choices[0].message.content
    assert text is not None
    assert "Paris" in text
    assert "<|im_end|>" not in text
    assert answers[1].choices[0].message.content == text
    assert answers[0].choices[0].finish_reason == "stop"
    usage = answers[0].usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 1 < usage.completion_tokens < 24


def test_streaming_gives_the_text_of_the_whole_answer_and_its_usage(client: openai.OpenAI) -> None:
    question: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "Name three fruits. 🍎"}]
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=question,
            temperature=0,
            max_tokens=32,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert len([text for text in texts if text]) > 3
    whole = client.chat.completions.create(model=MODEL, messages=question, temperature=0, max_tokens=32)
    assert "".join(texts) == whole.choices[0].message.content
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_completions_with_text_ids_seed_and_stop(client: openai.OpenAI, served: Served) -> None:
    prompt = "1, 2, 3, 4, 5,"
    ids = served.engine.tokenizer.encode(prompt)
    whole = client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=12)
    same = client.completions.create(model=MODEL, prompt=[ids], temperature=0, max_tokens=12)
    assert whole.choices[0].text == same.choices[0].text
    assert whole.choices[0].text.startswith(" 6, 7, 8")
    assert whole.choices[0].finish_reason == "length"
    cut = client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=12, stop=["7, 8"])
    assert (cut.choices[0].text, cut.choices[0].finish_reason) == (" 6, ", "stop")
    drawn = [
        client.completions.create(model=MODEL, prompt="Once upon a time", seed=seed, temperature=1.2, max_tokens=12)
        for seed in (7, 7, -7)
    ]
    assert drawn[0].choices[0].text == drawn[1].choices[0].text != drawn[2].choices[0].text


def test_many_async_streams_share_the_machine(served: Served) -> None:
    async def one(client: openai.AsyncOpenAI, number: int) -> tuple[str, int]:
        stream = await client.completions.create(
            model=MODEL,
            prompt=f"The number {number} comes after",
            temperature=0,
            max_tokens=10,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage is not None
        text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
        return text, chunks[-1].usage.completion_tokens

    async def many() -> list[tuple[str, int]]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(one(client, number) for number in range(16)))

    _, steps_before = served.engine.step_columns(0)
    answers = asyncio.run(many())
    assert all(text for text, _ in answers)
    assert all(tokens <= 10 for _, tokens in answers)
    columns, _ = served.engine.step_columns(steps_before)
    assert max(int(str(count)) for count in columns["sequences"]) > 1, "nothing was batched"


def test_a_prefix_found_again_is_told_in_the_usage(client: openai.OpenAI) -> None:
    def ask(letter: str) -> tuple[int, int]:
        answer = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": letter}],
            max_tokens=2,
        )
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        cached = answer.usage.prompt_tokens_details.cached_tokens
        assert cached is not None
        return answer.usage.prompt_tokens, cached

    prompt_tokens, cached = ask("The lamp at the crossing is dark.")
    assert cached == 0
    _, again = ask("My bill went up.")
    assert again > 0
    assert again % 32 == 0
    assert again < prompt_tokens


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_client_that_leaves_takes_its_blocks_with_it(served: Served, path: str, stream: bool) -> None:
    _, since = served.engine.ended_requests(0)
    question = {"messages": [{"role": "user", "content": "Tell me a very long story."}]}
    body = {"model": MODEL, "stream": stream, "max_tokens": 2000, "ignore_eos": True}
    content = json.dumps(body | (question if path.startswith("chat") else {"prompt": "A very long story:"})).encode()
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=WAIT_S)
    with connection, connection.makefile("rb") as answer:
        head = f"POST /v1/{path} HTTP/1.1\r\nhost: test\r\ncontent-length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)
        if stream:
            assert b"200" in answer.readline()
            assert sum(answer.readline().startswith(b"data:") for _ in range(30)) > 5
        else:
            eventually(lambda: served.engine.gauges().running == 1)
        assert served.engine.gauges().kv_used_blocks > 0
    eventually(lambda: holds_nothing(served.engine))
    eventually(lambda: ends(served, since) == [FinishReason.CANCELLED])


def test_an_async_client_that_closes_its_stream_takes_its_blocks_with_it(served: Served) -> None:
    _, since = served.engine.ended_requests(0)

    async def begin_and_leave() -> None:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
            for number in range(3):
                stream = await client.completions.create(
                    model=MODEL, prompt=f"Story {number}:", max_tokens=2000, stream=True, extra_body={"ignore_eos": True}
                )
                await anext(aiter(stream))
                await stream.close()

    asyncio.run(begin_and_leave())
    eventually(lambda: holds_nothing(served.engine))
    eventually(lambda: ends(served, since) == [FinishReason.CANCELLED] * 3)


def test_what_is_too_long_is_refused_and_the_next_request_served(client: openai.OpenAI, served: Served) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=MODEL, prompt="word " * (served.engine.max_model_len + 8), max_tokens=1)
    assert refused.value.code == "context_length_exceeded"
    assert client.completions.create(model=MODEL, prompt="Hello", max_tokens=1).choices[0].finish_reason == "length"


def test_metrics_and_health_speak_of_the_real_engine(served: Served) -> None:
    address = urlsplit(served.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=WAIT_S)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    prompt_tokens = next(float(value) for name, value in values.items() if "prompt_tokens_total" in name)
    assert prompt_tokens == served.engine.gauges().prompt_tokens_total > 0
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()
