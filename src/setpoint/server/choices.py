"""The answers to one request on their way: usually one, with ``n`` or several prompts more.

Answers to the same prompt share its KV: the first is let into the engine alone, the others once its prompt is computed
and found in the prefix cache.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from setpoint.engine.request import Delta, FinishReason, GenerationRequest
from setpoint.engine.service import TokenStream
from setpoint.server import errors, sse
from setpoint.server.context import ServerContext
from setpoint.server.live.account import AnswerClock
from setpoint.server.read_ahead import ReadAhead

FINISHED: Final = (FinishReason.STOP, FinishReason.LENGTH)
NO_END: Final = Delta("", (), FinishReason.ERROR, "The engine ended the answer without a reason.")
Submit = Callable[[GenerationRequest], Awaitable[TokenStream]]
Ready = tuple[int, Sequence[Delta]]


def failure_of(delta: Delta, *, draining: bool = False) -> errors.ApiError | None:
    """The error that a last delta stands for; ``None`` for a delta that is not last or ends a whole answer.

    ``draining``: the engine was told to stop, so whatever it cuts it cuts for that reason.
    """
    if delta.finish_reason is None or delta.finish_reason in FINISHED:
        return None
    if delta.finish_reason is FinishReason.SHED:
        return errors.overloaded(delta.message or "shed while waiting", delta.retry_after_s)
    if draining or delta.finish_reason is FinishReason.CANCELLED:
        return errors.shutting_down()
    return errors.engine_error(delta.message)


class Answer:
    """One answer on its way: the deltas of a stream, counted, timed and checked for how they end."""

    def __init__(self, context: ServerContext, stream: TokenStream, clock: AnswerClock) -> None:
        self._context = context
        self.stream = stream
        self._reader = ReadAhead(aiter(stream))
        self._clock = clock
        self._kept: Sequence[Delta] = ()
        self.output_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.error: errors.ApiError | None = None

    async def prime(self) -> None:
        """Wait for the first deltas and keep them for ``deltas``; they count as sent when they are given out."""
        self._kept = await self._read()

    async def deltas(self) -> Sequence[Delta]:
        """What is ready, at least one delta; ``error`` is set if the answer ends with one."""
        deltas = self._kept or await self._read()
        self._kept = ()
        new_tokens = sum([len(delta.token_ids) for delta in deltas])
        self.output_tokens += new_tokens
        now_s = time.perf_counter()
        self._clock.tokens(new_tokens, now_s)
        if self.finish_reason in FINISHED:
            self._clock.finished(now_s)
        return deltas

    async def _read(self) -> Sequence[Delta]:
        deltas = await self._reader.batch()
        last = deltas[-1] if deltas else NO_END
        self.finish_reason = last.finish_reason
        self.error = failure_of(last, draining=self._context.draining)
        return deltas

    @property
    def read_out(self) -> bool:
        """Whether everything was given out."""
        return self.finish_reason is not None and not self._kept

    def close(self) -> None:
        """End the request in the engine if it has not ended, and count how it ended."""
        if self.finish_reason is None:
            self.stream.cancel()
        self._reader.close()
        self._clock.ended(self.finish_reason)
        self._context.metrics.ended(self.finish_reason or FinishReason.CANCELLED)


class Choices:
    """All answers to one request, in the order of their index. ``close`` must be called, whatever happened.

    clock: makes the clock of one answer, once the engine has taken it.
    """

    def __init__(self, context: ServerContext, submit: Submit, clock: Callable[[], AnswerClock]) -> None:
        self._context = context
        self._submit = submit
        self._clock = clock
        self._answers: dict[int, Answer] = {}
        self._leaders: list[int] = []
        self._reading: dict[asyncio.Task[Sequence[Delta]], int] = {}
        self._gone = False

    async def open(self, prompts: Sequence[Sequence[GenerationRequest]]) -> None:
        """Let the requests into the engine: for each prompt, those that share it. Raises ``ApiError`` if one is refused.

        With more than one answer, all are admitted and have their first token when this returns.
        """
        places: list[list[tuple[int, GenerationRequest]]] = []
        index = 0
        for same in prompts:
            places.append(list(enumerate(same, index)))
            index += len(same)
        self._leaders = [place[0][0] for place in places]
        await self._enter([place[0] for place in places], prime=index > 1)
        now_s = self._context.engine.now_s()
        others = [(index, _from_now(request, now_s)) for place in places for index, request in place[1:]]
        await self._enter(others, prime=True)

    async def _enter(self, requests: Sequence[tuple[int, GenerationRequest]], *, prime: bool) -> None:
        if self._gone:
            return
        # All at once: the engine looks for new requests between two steps only.
        entered = await asyncio.gather(*(self._enter_one(*request) for request in requests), return_exceptions=True)
        new = [self._answers[index] for index, _ in requests if index in self._answers]
        if self._gone:
            self.cancel()
        failures = [failure for failure in entered if failure is not None]
        if failures:
            raise max(failures, key=_gravity)
        if prime and new:
            await asyncio.gather(*(answer.prime() for answer in new))
            self.raise_error()

    async def _enter_one(self, index: int, request: GenerationRequest) -> None:
        stream = await self._submit(request)
        self._answers[index] = Answer(self._context, stream, self._clock())

    async def ready(self) -> list[Ready]:
        """What some choices have gained, each with its index; empty at the end. ``error`` tells if one failed."""
        if len(self._answers) == 1:
            (answer,) = self._answers.values()
            return [] if answer.read_out else [(0, await answer.deltas())]
        reading = set(self._reading.values())
        for index, answer in self._answers.items():
            if index not in reading and not answer.read_out:
                self._reading[asyncio.create_task(answer.deltas())] = index
        if not self._reading:
            return []
        done, _ = await asyncio.wait(self._reading, return_when=asyncio.FIRST_COMPLETED)
        return sorted([(self._reading.pop(task), task.result()) for task in done], key=lambda item: item[0])

    @property
    def error(self) -> errors.ApiError | None:
        """The first failure: it fails the request as a whole."""
        return next((answer.error for answer in self._answers.values() if answer.error is not None), None)

    def raise_error(self) -> None:
        """Raise what ``error`` gives, if anything."""
        if self.error is not None:
            raise self.error

    @property
    def done(self) -> bool:
        """Whether every answer was given out to its end, or one has failed."""
        return self.error is not None or not (self._reading or any(not one.read_out for one in self._answers.values()))

    def finish_reason(self, index: int) -> FinishReason | None:
        """How a choice ended; ``None`` while it goes on or has deltas that nobody has read."""
        answer = self._answers[index]
        return answer.finish_reason if answer.read_out else None

    def usage(self) -> dict[str, object]:
        """The usage so far: every prompt once, however many answers it has, and the tokens of all answers."""
        leaders = [self._answers[index].stream for index in self._leaders]
        return sse.usage(
            sum([stream.prompt_tokens for stream in leaders]),
            sum([answer.output_tokens for answer in self._answers.values()]),
            sum([stream.cached_tokens for stream in leaders]),
        )

    def cancel(self) -> None:
        """The client has left: end everything, and let nothing more into the engine."""
        self._gone = True
        for answer in self._answers.values():
            answer.stream.cancel()

    def close(self) -> None:
        """End what has not ended and count how everything ended."""
        for task in self._reading:
            task.cancel()
        for answer in self._answers.values():
            answer.close()


def _gravity(failure: BaseException) -> float:
    """What makes a request fail for good before what passes, and of that what passes last: who comes back sooner is refused."""
    waits_ms = failure.headers.get("retry-after-ms") if isinstance(failure, errors.ApiError) else None
    return math.inf if waits_ms is None else float(waits_ms)


def _from_now(request: GenerationRequest, now_s: float) -> GenerationRequest:
    """One more answer to a prompt that is computed: its first token is due from now, its end when it was due before."""
    limits, sent_s = request.limits, request.sent_s
    if sent_s is None:
        return request
    left_s = None if limits.e2e_s is None else max(0.0, limits.e2e_s - (now_s - sent_s))
    return replace(request, sent_s=now_s, limits=replace(limits, e2e_s=left_s))
