"""A threaded engine over an executor that answers the alphabet, step by step when told so, and fails when told so."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ParamSpec, cast

from setpoint.engine.batch import Batch, StepOutput
from setpoint.engine.request import Delta, GenerationRequest, SamplingParams
from setpoint.engine.service import TokenStream
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.threaded import ThreadedEngine
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.policy.configuration import ServingConfig
from setpoint.policy.decisions import Policy
from setpoint.policy.modes import build_policy

WAIT_S = 30.0
MODEL_LEN = 256
P = ParamSpec("P")


def in_event_loop(test: Callable[P, Coroutine[None, None, None]]) -> Callable[P, None]:
    """Run an asynchronous test; nothing may take longer than ``WAIT_S``."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def limited() -> None:
            async with asyncio.timeout(WAIT_S):
                await test(*args, **kwargs)

        asyncio.run(limited())

    return run


class ByteTable:
    """As much of a tokenizer as the engine needs: token i is byte i."""

    vocabulary_size = 128
    token_bytes = tuple(bytes([i]) for i in range(128))


class SteppedExecutor:
    """Every request is answered "abc...". With ``by_hand`` a step ends only when ``step`` is called."""

    observation_lag = 0

    def __init__(self, *, by_hand: bool = False, blocks: int = 64, block_tokens: int = 4) -> None:
        self.blocks = blocks
        self.block_tokens = block_tokens
        self.by_hand = by_hand
        self.fail_in_submit: Exception | None = None
        self.fail_in_collect: Exception | None = None
        self.closed = False
        self._allowed = threading.Semaphore(0)
        self._begun = 0
        self._changed = threading.Condition()

    def submit(self, batch: Batch) -> Batch:
        with self._changed:
            self._begun += 1
            self._changed.notify_all()
        if self.fail_in_submit is not None:
            raise self.fail_in_submit
        return batch

    def collect(self, ticket: Batch) -> StepOutput:
        start_s = time.monotonic()
        if self.by_hand:
            assert self._allowed.acquire(timeout=WAIT_S)
        if self.fail_in_collect is not None:
            raise self.fail_in_collect
        emitting = [item.sequence for item in ticket.items if item.emits]
        return StepOutput(start_s, time.monotonic(), tuple(ord("a") + s.emitted % 26 for s in emitting))

    def close(self) -> None:
        self.closed = True

    async def begun(self, count: int) -> None:
        """Wait until ``count`` steps have begun in all: the engine's thread is inside the last of them."""

        def wait() -> None:
            with self._changed:
                assert self._changed.wait_for(lambda: self._begun >= count, WAIT_S)

        await asyncio.to_thread(wait)

    def step(self, count: int = 1) -> None:
        """Let ``count`` more steps end."""
        self._allowed.release(count)

    def let_go(self) -> None:
        """From now on steps end by themselves."""
        self.by_hand = False
        self._allowed.release(1)


@dataclass
class Rig:
    """An engine and what it runs on."""

    engine: ThreadedEngine
    executor: SteppedExecutor

    async def ask(self, tokens: int = 5, *, prompt: str = "hello", **options: object) -> TokenStream:
        """Submit ``prompt`` for ``tokens`` letters. ``options``: of ``SamplingParams`` or of the request."""
        named = {name: options.pop(name) for name in list(options) if name in GenerationRequest.__slots__}
        sampling = SamplingParams(max_tokens=tokens, temperature=0.0, **options)  # type: ignore[arg-type]
        request = GenerationRequest(tuple(prompt.encode()), sampling, **named)  # type: ignore[arg-type]
        return await self.engine.submit(request)


def make_rig(
    executor: SteppedExecutor | None = None,
    *,
    config: ServingConfig | None = None,
    policy: Policy | None = None,
    stop_token_ids: frozenset[int] = frozenset(),
) -> Rig:
    """An engine that is not started."""
    executor = executor or SteppedExecutor()
    chosen = policy or build_policy(config or ServingConfig(mode="continuous"))

    def build() -> tuple[StepLoop, SteppedExecutor]:
        loop = StepLoop(chosen, executor, time.monotonic, max_model_len=MODEL_LEN, stop_token_ids=stop_token_ids)
        return loop, executor

    table = cast(ModelTokenizer, ByteTable())
    return Rig(ThreadedEngine(model_name="letters", tokenizer=table, build=build, max_model_len=10**6), executor)


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    """The rig started; stopped at the end, whatever is in it."""
    await rig.engine.start()
    try:
        yield rig
    finally:
        rig.executor.let_go()
        await rig.engine.stop()


async def all_of(stream: TokenStream) -> list[Delta]:
    """Every delta up to the end."""
    return [delta async for delta in stream]


def text_of(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def eventually(true: Callable[[], bool]) -> None:
    """Look until ``true()`` holds; the test's own limit ends it."""
    while not true():
        await asyncio.sleep(0.001)
