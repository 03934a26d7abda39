"""Encoding prompts: short texts on the spot, long ones off the event loop one at a time, and everything is bounded."""

from __future__ import annotations

import asyncio
import threading

import pytest
from scripted_engine import ByteTokenizer, ScriptedEngine

from setpoint.server import prompts
from setpoint.server.errors import ApiError
from setpoint.server.prompts import INLINE_CHARACTERS, PromptEncoder


class WatchedTokenizer(ByteTokenizer):
    """Notices if two long texts are encoded at once, and on which threads it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.alone = threading.Lock()
        self.threads: dict[int, str] = {}

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        if len(text) <= INLINE_CHARACTERS:
            self.threads[len(text)] = threading.current_thread().name
            return super().encode(text, add_special_tokens=add_special_tokens)
        assert self.alone.acquire(blocking=False), "two long encodings at once"
        try:
            self.threads[len(text)] = threading.current_thread().name
            return super().encode(text, add_special_tokens=add_special_tokens)
        finally:
            self.alone.release()


def watched_engine() -> tuple[ScriptedEngine, WatchedTokenizer]:
    engine, tokenizer = ScriptedEngine(max_model_len=65536), WatchedTokenizer()
    engine.tokenizer = tokenizer
    return engine, tokenizer


def test_long_and_short_prompts_together() -> None:
    engine, tokenizer = watched_engine()
    main = threading.current_thread().name

    async def run() -> list[int]:
        encoder = PromptEncoder(engine)
        lengths = [5, INLINE_CHARACTERS + 1, 7, 60_000, 9]
        found = [len(ids) for ids in await asyncio.gather(*(encoder.text("x" * length) for length in lengths))]
        found.append(len(await encoder.text("x" * 11)))
        encoder.close()
        return found

    assert asyncio.run(run()) == [6, INLINE_CHARACTERS + 2, 8, 60_001, 10, 12]
    on_the_loop = [length for length, name in tokenizer.threads.items() if name == main]
    assert on_the_loop == [5, 7, 9, 11]


def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "MAX_PENDING", 2)
    engine, _ = watched_engine()

    async def run() -> list[int]:
        encoder = PromptEncoder(engine)
        results = await asyncio.gather(*(encoder.text("x" * 50_000) for _ in range(4)), return_exceptions=True)
        encoder.close()
        with pytest.raises(ApiError) as closed:
            await encoder.text("x")
        assert closed.value.code == "server_shutting_down"
        return [result.status for result in results if isinstance(result, ApiError)]

    assert asyncio.run(run()) == [503, 503]


def test_the_characters_in_the_queue_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "MAX_PENDING_CHARACTERS", 60_000)
    engine, _ = watched_engine()

    async def run() -> list[int]:
        encoder = PromptEncoder(engine)
        lengths = (100_000, 50_000, 10)
        results = await asyncio.gather(*(encoder.text("x" * n) for n in lengths), return_exceptions=True)
        encoder.close()
        return [result.status if isinstance(result, ApiError) else 200 for result in results]

    assert asyncio.run(run()) == [200, 503, 200], "one is taken whatever its length, and short ones never wait"


def test_a_prompt_over_the_servers_own_limit_is_refused() -> None:
    encoder = PromptEncoder(ScriptedEngine(max_model_len=100), max_prompt_tokens=3)
    assert encoder.answer_tokens([1] * 3, 5, "prompt") == 5
    with pytest.raises(ApiError, match="4 tokens, and this server takes at most 3") as caught:
        encoder.answer_tokens([1] * 4, 5, "prompt")
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "prompt")


def test_what_cannot_fit_is_refused_before_it_is_encoded() -> None:
    engine, tokenizer = watched_engine()
    with pytest.raises(ApiError) as caught:
        asyncio.run(PromptEncoder(engine).text("x" * (engine.max_model_len * prompts.MAX_CHARACTERS_PER_TOKEN + 1)))
    assert caught.value.code == "context_length_exceeded"
    assert tokenizer.threads == {}


def test_the_cap_of_an_answer() -> None:
    encoder = PromptEncoder(ScriptedEngine(max_model_len=10))
    assert encoder.answer_tokens([1] * 4, None, "prompt") == 6
    assert encoder.answer_tokens([1] * 4, 6, "prompt") == 6
    for ids, wanted, param in (([1] * 4, 7, "max_tokens"), ([1] * 10, None, "prompt"), ([], 1, "prompt")):
        with pytest.raises(ApiError) as caught:
            encoder.answer_tokens(ids, wanted, "prompt")
        assert caught.value.param == param


@pytest.mark.parametrize("ids", [(-1,), (257,), (5, 1 << 80)])
def test_ids_outside_the_vocabulary(ids: tuple[int, ...]) -> None:
    with pytest.raises(ApiError, match="outside the vocabulary"):
        PromptEncoder(ScriptedEngine()).ids(ids)
