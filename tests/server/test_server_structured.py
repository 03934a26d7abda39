"""The demo model behind a real server: answers that fit their schema, tools called and answered, prompts shared."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from jsonschema import Draft202012Validator

from setpoint.engine.embedded import embedded_engine
from setpoint.engine.models import ResolvedModel
from setpoint.engine.threaded import ThreadedEngine
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.server.app import create_app
from setpoint.server.background import BackgroundServer

pytestmark = pytest.mark.model

MODEL = "smollm2-135m"
CASES = Path(__file__).parents[2] / "benchmarks" / "structured" / "cases.py"
TEMPLATE = Path(__file__).with_name("hermes_style.jinja")
EVERY = 9  # Of the 200 cases of the benchmark.
CONFIG = ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=32, token_budget=512, max_waiting=256, kv_cache_tokens=32768)
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "get_time"}},
]
QUESTION: list[Any] = [{"role": "user", "content": "What is the weather in Rome?"}]


@pytest.fixture(scope="module")
def engine(demo_model: ResolvedModel) -> ThreadedEngine:
    return embedded_engine(demo_model, CONFIG, chat_template=TEMPLATE.read_text())


@pytest.fixture(scope="module")
def url(engine: ThreadedEngine) -> Iterator[str]:
    with BackgroundServer(create_app(engine)) as server:
        yield f"{server.url}/v1"


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120) as one:
        yield one


def some_cases() -> list[Any]:
    """Every ``EVERY``-th case of the benchmark: all schemas, both temperatures."""
    spec = importlib.util.spec_from_file_location("structured_cases", CASES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    cases: list[Any] = module.cases()
    chosen = cases[::EVERY]
    assert {case.name for case in chosen} == {case.name for case in cases}
    return chosen


def test_answers_fit_their_schemas_beside_free_neighbours(url: str) -> None:
    async def fitting(client: openai.AsyncOpenAI, case: Any) -> None:
        answer = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": case.prompt}],
            temperature=case.temperature,
            seed=case.seed,
            max_tokens=1024,
            response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": case.schema}},
        )
        assert answer.choices[0].finish_reason == "stop"
        validator = Draft202012Validator(case.schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
        validator.validate(json.loads(answer.choices[0].message.content or ""))

    async def free(client: openai.AsyncOpenAI, number: int) -> str:
        answer = await client.completions.create(model=MODEL, prompt=f"Story {number}:", max_tokens=48, temperature=0)
        return answer.choices[0].text

    async def together() -> list[str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=240) as client:
            neighbours = [asyncio.create_task(free(client, number)) for number in range(6)]
            await asyncio.gather(*(fitting(client, case) for case in some_cases()))
            return await asyncio.gather(*neighbours)

    assert all(asyncio.run(together()))


def test_a_cap_that_cuts_json_is_told(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        max_tokens=3,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER}},
    )
    assert answer.choices[0].finish_reason == "length"
    assert (answer.choices[0].message.content or "").startswith("{")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}], ids=str)
def test_a_call_its_result_and_an_answer(client: openai.OpenAI, choice: Any, temperature: float) -> None:
    first = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        tools=TOOLS,
        tool_choice=choice,
        parallel_tool_calls=temperature > 0,
        temperature=temperature,
        seed=1,
        max_tokens=1024,
    )
    assert first.choices[0].finish_reason == "tool_calls"
    message = first.choices[0].message
    assert message.content is None
    assert message.tool_calls
    if choice != "required":
        assert [call.function.name for call in message.tool_calls if call.type == "function"] == ["get_weather"]
    results: list[Any] = []
    for call in message.tool_calls:
        assert call.type == "function"
        arguments = json.loads(call.function.arguments)
        if call.function.name == "get_weather":
            Draft202012Validator(WEATHER).validate(arguments)
        else:
            assert (call.function.name, arguments) == ("get_time", {})
        results.append({"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21, "sky": "clear"}'})
    told: list[Any] = [*QUESTION, message.model_dump(exclude_none=True), *results]
    second = client.chat.completions.create(model=MODEL, messages=told, tools=TOOLS, max_tokens=40)
    assert second.choices[0].finish_reason in ("stop", "length", "tool_calls")
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


def test_a_streamed_call_is_the_whole_one(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "tools": TOOLS, "tool_choice": "required"}
    asked |= {"temperature": 0, "max_tokens": 1024, "parallel_tool_calls": False}
    whole = client.chat.completions.create(**asked).choices[0].message.tool_calls
    assert whole is not None
    names, arguments = [], ""
    for chunk in client.chat.completions.create(**asked, stream=True):
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.index == 0
            assert call.function is not None
            names += [call.function.name] if call.function.name else []
            arguments += call.function.arguments or ""
    assert [(name, arguments) for name in names] == [(call.function.name, call.function.arguments) for call in whole]


def test_strict_arguments_are_kept_where_calls_are_free(client: openai.OpenAI) -> None:
    strict: list[Any] = [{"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}]
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, tools=strict, temperature=1, seed=2, max_tokens=60)
    for call in answer.choices[0].message.tool_calls or []:
        if answer.choices[0].finish_reason == "tool_calls" and call.type == "function":
            Draft202012Validator(WEATHER).validate(json.loads(call.function.arguments))
    assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")


def test_answers_to_one_prompt_share_its_kv(client: openai.OpenAI, engine: ThreadedEngine) -> None:
    words = "The keeper counts the ships that pass and writes each of them down with its name and its flag. "
    prompt = words * 12
    _, since = engine.ended_requests(0)
    answer = client.completions.create(model=MODEL, prompt=prompt, n=4, temperature=1, seed=1, max_tokens=8)
    assert len({choice.text for choice in answer.choices}) > 1
    assert answer.usage is not None
    tokens = answer.usage.prompt_tokens
    assert answer.usage.completion_tokens <= 4 * 8
    cached = sorted(stats.cached_tokens for stats in engine.ended_requests(since)[0])
    assert cached[0] == 0
    assert cached[1:] == [(tokens - 1) // 32 * 32] * 3
    details = client.completions.create(model=MODEL, prompt=prompt, max_tokens=1).usage
    assert details is not None
    assert details.prompt_tokens_details is not None
    assert details.prompt_tokens_details.cached_tokens == cached[1]


def test_a_biased_token_comes_or_stays_away(client: openai.OpenAI, engine: ThreadedEngine) -> None:
    plain = client.completions.create(model=MODEL, prompt="The capital of France is", max_tokens=1, temperature=0, logprobs=5)
    shown = plain.choices[0].logprobs
    assert shown is not None
    assert shown.tokens == [" Paris"]
    assert shown.token_logprobs is not None
    assert shown.token_logprobs[0] == max(shown.top_logprobs[0].values())  # type: ignore[index]
    (paris,) = map(str, engine.tokenizer.encode(" Paris", add_special_tokens=False))
    for token, bias in (("1000", 100), (paris, -100)):
        forced = client.completions.create(
            model=MODEL, prompt="The capital of France is", max_tokens=1, temperature=0, logit_bias={token: bias}
        )
        assert forced.choices[0].text != " Paris"
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=MODEL, prompt="x", logit_bias={"999999": 1})
    assert refused.value.param == "logit_bias"
