"""The step loop on its own thread, requests and streams on the caller's event loop.

Between ``begin_step`` and ``finish_step`` the kernels run without the interpreter lock; in that window the previous step's
tokens are turned into text and handed over, one wake-up of the event loop a step. Nothing on the event loop waits for the
engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from setpoint.engine.detokenize import TextStream
from setpoint.engine.executor import Executor
from setpoint.engine.request import (
    Delta,
    EngineFailed,
    FinishReason,
    GenerationRequest,
    InvalidRequest,
    Rejected,
    RequestStats,
)
from setpoint.engine.sequence import Sequence
from setpoint.engine.service import EngineGauges
from setpoint.engine.step_loop import Emission, StepLoop
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.engine.validation import require_servable

Answer = TypeVar("Answer")

SHUTTING_DOWN = "the server is shutting down"
NOT_STARTED = "the engine has not started"
STATS_RING = 1 << 15
IDLE_CHECK_S = 0.5
SWITCH_INTERVAL_S = 0.0005


class EngineStream:
    """One request's answer on the event loop (``service.TokenStream``). Unread deltas are bounded by ``max_tokens``."""

    def __init__(self, engine: ThreadedEngine, request: GenerationRequest) -> None:
        self.request = request
        self.prompt_tokens = len(request.prompt_ids)
        self.cached_tokens = 0
        self._engine = engine
        self._deltas: asyncio.Queue[Delta] = asyncio.Queue()
        self._ended = False

    async def __aiter__(self) -> AsyncIterator[Delta]:
        while not self._ended:
            delta = await self._deltas.get()
            self._ended = delta.finish_reason is not None
            yield delta

    def cancel(self) -> None:
        """End the request; its KV blocks are free at the next step."""
        self._engine.cancel(self)

    def push(self, delta: Delta) -> None:
        """Called on the event loop by the engine."""
        self._deltas.put_nowait(delta)


class _Live:
    """A request inside the engine, as the engine's thread sees it."""

    __slots__ = ("sequence", "stream", "text")

    def __init__(self, sequence: Sequence, stream: EngineStream, text: TextStream) -> None:
        self.sequence = sequence
        self.stream = stream
        self.text = text


class ThreadedEngine:
    """``service.EngineService`` over a ``StepLoop``. ``build`` makes executor and loop on the engine's own thread."""

    def __init__(
        self,
        *,
        model_name: str,
        tokenizer: ModelTokenizer,
        build: Callable[[], tuple[StepLoop, Executor]],
        max_model_len: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model_name = model_name
        self.tokenizer = tokenizer
        self.max_model_len = max_model_len
        self._build = build
        self._clock = clock
        self._inbox: deque[Callable[[], None]] = deque()
        self._gate = threading.Lock()
        self._closed = False
        self._wake = threading.Event()
        self._stopping = False
        self._quitting = False
        self._failure: str | None = None
        self._live: dict[int, _Live] = {}
        self._id_of: dict[EngineStream, int] = {}
        self._ended: deque[tuple[int, RequestStats]] = deque(maxlen=STATS_RING)
        self._emissions: list[Emission] = []
        self._outbox: list[tuple[EngineStream, Delta]] = []
        self._steps: StepLoop | None = None
        self._thread: threading.Thread | None = None

    # On the event loop

    async def start(self) -> None:
        """Build the executor and start stepping; raises ``EngineFailed`` if the model cannot be run."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._event_loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = self._event_loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="setpoint-engine", daemon=True)
        self._thread.start()
        await ready

    async def submit(self, request: GenerationRequest) -> EngineStream:
        """Admit a request at the next step boundary. Raises ``Rejected``, ``InvalidRequest`` or ``EngineFailed``."""
        self._raise_if_down()
        require_servable(request, self.tokenizer.vocabulary_size)
        if request.sent_s is None:  # its limits run from here: the engine looks into its inbox only between two steps
            request = replace(request, sent_s=self._clock())
        stream = EngineStream(self, request)
        answer: asyncio.Future[int] = self._event_loop.create_future()
        self._post(lambda: self._admit(stream, answer))
        try:
            stream.cached_tokens = await answer
        except asyncio.CancelledError:
            stream.cancel()
            raise
        return stream

    def cancel(self, stream: EngineStream) -> None:
        """End the stream's request, wherever it is."""
        self._post(lambda: self._cancel(stream))

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """Refuse new requests, let running ones end within ``drain_s`` seconds, cancel the rest, stop the thread."""
        self._stopping = True
        deadline_s = self._clock() + drain_s
        while (self._live or self._inbox) and self._clock() < deadline_s and self._failure is None:
            await asyncio.sleep(0.02)
        if self._thread is not None:
            self._post(self._quit)
            await asyncio.to_thread(self._thread.join)

    def gauges(self) -> EngineGauges:
        """A snapshot; counters are read without a lock, each is a single number."""
        steps = self._steps
        if steps is None:
            raise EngineFailed(NOT_STARTED)
        if self._failure is not None:
            raise EngineFailed(self._failure)
        return EngineGauges(
            now_s=self._clock(),
            waiting=len(steps.waiting),
            running=len(steps.running),
            kv_blocks=steps.pool.blocks,
            kv_used_blocks=steps.pool.used,
            steps_total=steps.steps.total,
            step_seconds_total=steps.steps.seconds_total,
            prefix_queries_total=steps.counters.prefix_queries,
            prefix_hits_total=steps.counters.prefix_hits,
            preemptions_total=steps.counters.preemptions,
            shed_total=steps.counters.shed,
            rejected_total=steps.counters.rejected,
            prompt_tokens_total=steps.counters.prompt_tokens,
            output_tokens_total=steps.counters.output_tokens,
            admissions=dict(steps.counters.admissions),
            prediction_error=None if steps.step_time is None else steps.step_time.recent_error,
            prediction_source="" if steps.step_time is None else steps.step_time.source,
        )

    def ended_requests(self, since: int) -> tuple[list[RequestStats], int]:
        """Ended requests numbered ``since`` and later (the newest ``STATS_RING`` are kept), and the next number."""
        kept = list(self._ended)
        if not kept:
            return [], 0
        first = kept[0][0]
        return [stats for _, stats in kept[max(0, since - first) :]], first + len(kept)

    def step_columns(self, since: int) -> tuple[dict[str, list[object]], int]:
        """Recorded steps numbered ``since`` and later as columns, and the next number."""
        if self._steps is None:
            raise EngineFailed(NOT_STARTED)
        return self._steps.steps.columns(since)

    def decision_columns(self, since: int) -> tuple[dict[str, list[object]], int]:
        """Decisions numbered ``since`` and later as columns, and the next number."""
        if self._steps is None:
            raise EngineFailed(NOT_STARTED)
        return self._steps.decisions.columns(since)

    def _raise_if_down(self) -> None:
        if self._failure is not None or self._stopping or self._steps is None:
            raise EngineFailed(self._why_down())

    def _why_down(self) -> str:
        return self._failure or (SHUTTING_DOWN if self._stopping or self._quitting else NOT_STARTED)

    def _post(self, action: Callable[[], None]) -> None:
        """Run ``action`` on the engine's thread; once that is gone, here, where it can only find that out."""
        with self._gate:
            if not self._closed:
                self._inbox.append(action)
                self._wake.set()
                return
        action()

    # On the engine's thread

    def _run(self, ready: asyncio.Future[None]) -> None:
        try:
            steps, executor = self._build()
        except Exception as error:  # whatever went wrong belongs to the caller of start()
            failure = error if isinstance(error, EngineFailed) else EngineFailed(_words(error))
            self._failure = str(failure)
            self._close()
            self._on_event_loop(partial(_refuse, ready, failure))
            return
        self._steps = steps
        self.max_model_len = steps.max_model_len
        self._on_event_loop(partial(_resolve, ready, None))
        try:
            self._step_until_told(steps)
        except Exception as error:  # an executor, a policy: nothing may leave a stream without an end
            self._failure = f"the engine failed: {_words(error)}"
        try:
            self._wind_up(steps)
        finally:
            self._close()
            executor.close()

    def _step_until_told(self, steps: StepLoop) -> None:
        while True:
            self._take_inbox()
            if self._quitting:
                return
            started = steps.begin_step()
            self._publish()
            if started:
                self._emissions = steps.finish_step()
            else:
                self._rest(steps)

    def _wind_up(self, steps: StepLoop) -> None:
        """Hand over what the last step gave, then end every stream that has no end, even if the step loop is broken."""
        try:
            self._publish()
            steps.abort_all(self._why_down())
        except Exception as error:
            self._failure = self._failure or f"the engine failed: {_words(error)}"
        for live in list(self._live.values()):
            self._outbox.append((live.stream, Delta(live.text.finish(), (), FinishReason.ERROR, self._why_down())))
            self._retire(live, FinishReason.ERROR)
        self._send()

    def _close(self) -> None:
        """From here on nothing can be posted; what was posted before is answered."""
        with self._gate:
            self._closed = True
        self._take_inbox()

    def _take_inbox(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _rest(self, steps: StepLoop) -> None:
        """Sleep until something arrives or the policy wants to be asked again."""
        wait_s = IDLE_CHECK_S if steps.wake_at_s is None else max(0.0, steps.wake_at_s - self._clock())
        self._wake.wait(min(wait_s, IDLE_CHECK_S))
        self._wake.clear()

    def _admit(self, stream: EngineStream, answer: asyncio.Future[int]) -> None:
        if self._closed or self._steps is None:
            self._on_event_loop(partial(_refuse, answer, EngineFailed(self._why_down())))
            return
        try:
            sequence = self._steps.submit(stream.request)
        except (Rejected, InvalidRequest) as error:
            self._on_event_loop(partial(_refuse, answer, error))
            return
        except Exception as error:
            self._on_event_loop(partial(_refuse, answer, EngineFailed(f"the engine failed: {_words(error)}")))
            raise
        text = TextStream(self.tokenizer.token_bytes, stream.request.sampling.stop)
        self._live[sequence.sequence_id] = _Live(sequence, stream, text)
        self._id_of[stream] = sequence.sequence_id
        self._on_event_loop(partial(_resolve, answer, sequence.cached_tokens))

    def _cancel(self, stream: EngineStream) -> None:
        live = self._live.get(self._id_of.get(stream, -1))
        if live is not None and self._steps is not None:
            self._steps.end(live.sequence, FinishReason.CANCELLED)

    def _quit(self) -> None:
        self._quitting = True

    def _publish(self) -> None:
        """Turn the last step's emissions into text and hand them over; a stop string found ends its request."""
        assert self._steps is not None
        emissions, self._emissions = self._emissions, []
        for emission in (*emissions, *self._steps.take_notices()):
            self._publish_one(emission)
        self._send()

    def _send(self) -> None:
        if self._outbox:
            outbox, self._outbox = self._outbox, []
            self._on_event_loop(partial(_deliver, outbox))

    def _publish_one(self, emission: Emission) -> None:
        assert self._steps is not None
        live = self._live.get(emission.sequence.sequence_id)
        if live is None:
            return
        reason = emission.finish_reason
        if emission.token is not None:
            text = live.text.feed(emission.token, last=reason is not None)
            ids: tuple[int, ...] = (emission.token,)
            if live.text.stopped:
                reason = FinishReason.STOP
                self._steps.end(emission.sequence, reason)
        else:
            text, ids = live.text.finish(), ()
        # A token that only ends the answer is none of its text.
        logprobs = emission.sequence.logprobs if ids and emission.finish_reason is not FinishReason.STOP else None
        delta = Delta(text, ids, reason, emission.message, emission.retry_after_s, logprobs)
        live.stream.cached_tokens = emission.sequence.cached_tokens
        self._outbox.append((live.stream, delta))
        if reason is not None:
            self._retire(live, reason)

    def _retire(self, live: _Live, reason: FinishReason) -> None:
        sequence = live.sequence
        del self._live[sequence.sequence_id]
        self._id_of.pop(live.stream, None)
        stats = RequestStats(
            name=sequence.request.name,
            arrived_s=sequence.arrived_s,
            first_scheduled_s=sequence.first_scheduled_s,
            first_token_s=sequence.first_token_s,
            ended_s=self._clock(),
            prompt_tokens=sequence.prompt_tokens,
            cached_tokens=sequence.cached_tokens,
            output_tokens=sequence.emitted,
            preemptions=sequence.preemptions,
            finish_reason=reason,
        )
        # Number and record go in together: a reader on the other thread sees both or neither.
        self._ended.append((self._ended[-1][0] + 1 if self._ended else 0, stats))

    def _on_event_loop(self, action: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody listens any more
            self._event_loop.call_soon_threadsafe(action)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _resolve(answer: asyncio.Future[Answer], value: Answer) -> None:
    if not answer.done():
        answer.set_result(value)


def _refuse(answer: asyncio.Future[Answer], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


def _deliver(outbox: list[tuple[EngineStream, Delta]]) -> None:
    for stream, delta in outbox:
        stream.push(delta)
