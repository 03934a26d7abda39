"""A deterministic engine in memory that echoes prompts, one byte a step, really streamed on the event loop."""

from __future__ import annotations

import asyncio
import codecs
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from setpoint.engine.chat_template import NO_VARIABLES, ToolStyle
from setpoint.engine.constraint import Grammar, GrammarSpec
from setpoint.engine.grammars import GrammarCompiler
from setpoint.engine.request import (
    Delta,
    EngineFailed,
    FinishReason,
    GenerationRequest,
    InvalidRequest,
    RequestStats,
    TokenLogprobs,
)
from setpoint.engine.service import EngineGauges, Tokenizer

BOS = 256
WAIT_S = 20.0


class ByteTokenizer:
    """One token a byte of UTF-8, and one special token at the start."""

    vocabulary_size = 257
    tool_style = ToolStyle.HERMES

    def __init__(self) -> None:
        pieces = [bytes([byte]) for byte in range(256)] + [b""]
        self._compiler = GrammarCompiler(pieces, {BOS}, {BOS}, lambda text: list(text.encode()))

    def piece(self, token: int) -> bytes:
        return b"<bos>" if token == BOS else bytes([token])

    def compile_grammar(self, spec: GrammarSpec) -> Grammar:
        return self._compiler.compile(spec)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return ([BOS] if add_special_tokens else []) + list(text.encode())

    def decode(self, token_ids: list[int]) -> str:
        return bytes(token for token in token_ids if token != BOS).decode(errors="replace")

    def render_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] = (),
        add_generation_prompt: bool = True,
        extra: Mapping[str, object] = NO_VARIABLES,
    ) -> str:
        if messages[0]["content"] == "no template":
            raise InvalidRequest("the template does not take this conversation", "messages")
        turns = "".join(f"<{message['role']}>{message['content']}" for message in messages)
        return turns + ("<assistant>" if add_generation_prompt else "") + "".join(f"<{k}={v}>" for k, v in extra.items())


@dataclass
class EchoStream:
    """The answer to one request."""

    engine: ScriptedEngine
    request: GenerationRequest
    prompt_tokens: int
    cached_tokens: int
    left: list[int]
    queue: asyncio.Queue[Delta] = field(default_factory=asyncio.Queue)
    decoder: codecs.IncrementalDecoder = field(default_factory=codecs.getincrementaldecoder("utf-8"))
    emitted: int = 0

    async def __aiter__(self) -> AsyncIterator[Delta]:
        while True:
            delta = await self.queue.get()
            yield delta
            if delta.finish_reason is not None:
                return

    def cancel(self) -> None:
        self.engine.end(self, Delta("", (), FinishReason.CANCELLED))


class ScriptedEngine:
    """Echoes the prompt's bytes; grammars are compiled, and not kept to.

    With ``auto`` it steps whenever there is work, else only when ``step`` is called.

    refuse: raised by ``submit``. first: given as the only delta of every request. break_with: ends every answer after
    ``break_after`` tokens. ``streams`` are the requests in the engine, ``ended`` the records of those that were.
    """

    def __init__(self, *, auto: bool = True, max_model_len: int = 256, model_name: str = "echo") -> None:
        self.model_name = model_name
        self.max_model_len = max_model_len
        self.tokenizer: Tokenizer = ByteTokenizer()
        self.auto = auto
        self.refuse: Exception | None = None
        self.first: Delta | None = None
        self.break_after = -1
        self.break_with: Delta | None = None
        self.failed = False
        self.stopped_with_drain_s: float | None = None
        self.submitted: list[GenerationRequest] = []
        self.streams: list[EchoStream] = []
        self.ended: list[RequestStats] = []
        self.steps = 0
        self._changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticking: asyncio.Task[None] | None = None

    def now_s(self) -> float:
        return time.monotonic()

    async def start(self) -> None:
        if self.failed:
            raise EngineFailed("the model cannot be run")
        self._loop = asyncio.get_running_loop()
        if self.auto:
            self._ticking = asyncio.create_task(self._tick())

    async def submit(self, request: GenerationRequest) -> EchoStream:
        self.submitted.append(request)
        if self.refuse is not None:
            raise self.refuse
        left = [token for token in request.prompt_ids if token != BOS]
        stream = EchoStream(self, request, len(request.prompt_ids), len(request.prompt_ids) // 2, left)
        self._change(lambda: self.streams.append(stream))
        if self.first is not None:
            self.end(stream, self.first)
        return stream

    async def stop(self, *, drain_s: float = 0.0) -> None:
        self.stopped_with_drain_s = drain_s
        deadline_s = asyncio.get_running_loop().time() + drain_s
        while self.streams and asyncio.get_running_loop().time() < deadline_s:
            await asyncio.sleep(0.001)
        for stream in list(self.streams):
            stream.cancel()
        if self._ticking is not None:
            self._ticking.cancel()

    def gauges(self) -> EngineGauges:
        if self.failed:
            raise EngineFailed("the engine has stopped")
        return EngineGauges(
            now_s=float(self.steps),
            waiting=0,
            running=len(self.streams),
            kv_blocks=8,
            kv_used_blocks=min(8, len(self.streams)),
            steps_total=self.steps,
            step_seconds_total=float(self.steps),
            prefix_queries_total=20,
            prefix_hits_total=10,
            preemptions_total=3,
            shed_total=2,
            rejected_total=1,
            prompt_tokens_total=sum(stats.prompt_tokens for stats in self.ended),
            output_tokens_total=sum(stats.output_tokens for stats in self.ended),
        )

    def ended_requests(self, since: int) -> tuple[list[RequestStats], int]:
        return self.ended[since:], len(self.ended)

    def decision_columns(self, since: int) -> tuple[dict[str, list[object]], int]:
        rows = range(since, self.steps)
        columns: dict[str, list[object]] = {"decision": list(rows), "time_s": [float(row) for row in rows]}
        return columns | {"operands": [{"x": 1.0} for _ in rows]}, self.steps

    def step_columns(self, since: int) -> tuple[dict[str, list[object]], int]:
        numbers = list(range(since, self.steps))
        predictions: list[object] = [float("nan") if number % 2 else 0.5 for number in numbers]
        return {"step": [*numbers], "predicted_s": predictions, "reason": ["echo" for _ in numbers]}, self.steps

    def step(self) -> None:
        """One byte for every request; call it on the event loop."""
        for stream in list(self.streams):
            self._emit(stream)
        self._change(lambda: setattr(self, "steps", self.steps + 1))

    def step_from_outside(self, count: int = 1) -> None:
        """``count`` steps from another thread; returns when they are done."""

        async def steps() -> None:
            for _ in range(count):
                self.step()
                await asyncio.sleep(0)

        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(steps(), self._loop).result(WAIT_S)

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Block this thread until ``true()`` holds; an error after ``WAIT_S`` seconds."""
        with self._changed:
            assert self._changed.wait_for(true, WAIT_S), "the engine never came to the state waited for"

    def end(self, stream: EchoStream, delta: Delta) -> None:
        """The last delta of a stream; nothing if it has ended."""
        if stream not in self.streams or delta.finish_reason is None:
            return
        stream.queue.put_nowait(delta)
        stats = RequestStats(
            name=stream.request.name,
            arrived_s=1.0,
            first_scheduled_s=1.5,
            first_token_s=2.0 if stream.emitted else None,
            ended_s=3.0,
            prompt_tokens=stream.prompt_tokens,
            cached_tokens=stream.cached_tokens,
            output_tokens=stream.emitted,
            preemptions=0,
            finish_reason=delta.finish_reason,
        )

        def move() -> None:
            self.streams.remove(stream)
            self.ended.append(stats)

        self._change(move)

    def _emit(self, stream: EchoStream) -> None:
        if self.break_with is not None and stream.emitted == self.break_after:
            self.end(stream, self.break_with)
            return
        if not stream.left:
            self.end(stream, Delta(stream.decoder.decode(b"", True), (), FinishReason.STOP))
            return
        token = stream.left.pop(0)
        stream.emitted += 1
        text = stream.decoder.decode(bytes([token]))
        most = stream.request.sampling.logprobs
        # The likeliest is the byte itself, the next ones follow it in the table.
        top = tuple(((token + place) % 256, -0.5 - place) for place in range(most or 0))
        logprobs = None if most is None else TokenLogprobs(token, -0.5, top)
        if stream.emitted == stream.request.sampling.max_tokens:
            self.end(stream, Delta(text, (token,), FinishReason.LENGTH, logprobs=logprobs))
        else:
            stream.queue.put_nowait(Delta(text, (token,), logprobs=logprobs))

    def _change(self, change: Callable[[], object]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()

    async def _tick(self) -> None:
        while True:
            if self.streams:
                self.step()
            await asyncio.sleep(0 if self.streams else 0.001)
