"""The step loop on its own thread, requests and streams on the caller's event loop.

Between ``begin_step`` and ``finish_step`` the kernels run without the interpreter lock; in that window the previous step's
tokens are turned into text and handed over, one wake-up of the event loop a step. Nothing on the event loop waits for the
engine.

When a step fails, its requests end with an error, executor and step loop are built anew on the same thread, and the records
go on. When a step does not come back, its requests end as well, and the thread is built anew should it ever return.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf

from setpoint.engine.detokenize import TextStream
from setpoint.engine.emission import Emission
from setpoint.engine.executor import Executor
from setpoint.engine.gauges import gauges_of
from setpoint.engine.handing_over import EndedRequests, deliver, refuse, resolve, words
from setpoint.engine.request import (
    Delta,
    EngineFailed,
    EngineRestarting,
    FinishReason,
    GenerationRequest,
    InvalidRequest,
    Rejected,
    RequestStats,
)
from setpoint.engine.restarts import NO_RESTARTS, Recovery, RestartLimits
from setpoint.engine.service import EngineGauges
from setpoint.engine.step_loop import StepLoop
from setpoint.engine.step_watch import StepWatch
from setpoint.engine.stream import EngineStream, LiveRequest
from setpoint.engine.tokenizer import ModelTokenizer
from setpoint.engine.validation import require_servable

SHUTTING_DOWN = "the server is shutting down"
NOT_STARTED = "the engine has not started"
IDLE_CHECK_S = 0.5
# Of each step's start, for requests that came meanwhile.
TAKE_S = 0.005
SWITCH_INTERVAL_S = 0.0005
# A step of a second is long; a minute is a kernel that will not return.
STEP_LIMIT_S = 60.0
WATCH_EVERY_S = 0.25
# How long a stop waits, after its deadline, for an engine that is being built again.
STOP_GRACE_S = 1.0
logger = logging.getLogger("setpoint.engine")


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
        restarts: RestartLimits = NO_RESTARTS,
        step_limit_s: float = STEP_LIMIT_S,
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
        self._recovery = Recovery(restarts, clock)
        self._stalls_total = 0
        self._watch = StepWatch(step_limit_s, clock)
        self._watching: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Future[None]] = set()
        self._live: dict[int, LiveRequest] = {}
        self._id_of: dict[EngineStream, int] = {}
        self._ended = EndedRequests()
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
        self._watching = asyncio.create_task(self._keep_watching())

    def now_s(self) -> float:
        """See ``EngineService``."""
        return self._clock()

    async def submit(self, request: GenerationRequest) -> EngineStream:
        """Admit a request at the next step boundary. Raises ``Rejected``, ``InvalidRequest`` or ``EngineFailed``."""
        self._raise_if_down(follows=request.follows)
        require_servable(request, self.tokenizer.vocabulary_size)
        if request.sent_s is None:  # its limits run from here: the engine looks into its inbox only between two steps
            request = replace(request, sent_s=self._clock())
        stream = EngineStream(request, self.cancel)
        answer: asyncio.Future[None] = self._event_loop.create_future()
        self._asking.add(answer)
        answer.add_done_callback(self._asking.discard)
        self._post(lambda: self._admit(stream, answer))
        try:
            await answer
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
        while (self._live or self._inbox) and self._clock() < deadline_s and self._comes_back():
            await asyncio.sleep(0.02)
        if self._thread is not None:
            self._post(self._quit)
            # A thread inside a step that never returns is left behind: it is a daemon and ends with the process.
            while self._thread.is_alive() and not self._watch.given_up and not self._builds_past(deadline_s + STOP_GRACE_S):
                await asyncio.to_thread(self._thread.join, WATCH_EVERY_S)
        if self._watching is not None:
            self._watching.cancel()

    def gauges(self) -> EngineGauges:
        """A snapshot; counters are read without a lock, each is a single number."""
        steps = self._steps
        if steps is None:
            raise EngineFailed(NOT_STARTED)
        if self._recovery.failure is not None:
            raise EngineFailed(self._recovery.failure)
        outage = self._outage()
        if outage is not None:
            raise EngineRestarting(outage, self._recovery.retry_after_s)
        return gauges_of(steps, self._clock(), self._recovery.restarts_total, self._stalls_total)

    def ended_requests(self, since: int) -> tuple[list[RequestStats], int]:
        """Ended requests numbered ``since`` and later (a bounded ring), and the next number."""
        return self._ended.since(since)

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

    def _raise_if_down(self, *, follows: bool = False) -> None:
        draining = self._stopping and not (follows and self._live)
        if self._recovery.failure is not None or draining or self._steps is None:
            raise EngineFailed(self._why_down())
        outage = self._outage()
        if outage is not None:
            raise Rejected(outage, self._recovery.retry_after_s)

    def _outage(self) -> str | None:
        """Why requests are refused for the moment, if they are."""
        return f"the engine failed: {self._watch.message}" if self._watch.given_up else self._recovery.outage

    def _comes_back(self) -> bool:
        """Whether what is in the engine may still end as it should."""
        return self._recovery.failure is None and not self._watch.given_up

    def _builds_past(self, moment_s: float) -> bool:
        """Whether the engine is still being built again at that moment: nothing in it is worth waiting for."""
        return self._recovery.outage is not None and self._clock() >= moment_s

    def _why_down(self) -> str:
        stopped = SHUTTING_DOWN if self._stopping or self._quitting else NOT_STARTED
        return self._recovery.failure or self._outage() or stopped

    async def _keep_watching(self) -> None:
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            self.look_for_a_stall()

    def look_for_a_stall(self) -> None:
        """If a step has taken too long, end every request: its thread cannot be asked, and may never answer again."""
        if not self._watch.overdue():
            return
        self._stalls_total += 1
        logger.error("%s; its requests are ended", self._why_down())
        for live in list(self._live.values()):
            live.stream.push(self._last_words(live, ""))
        for answer in list(self._asking):
            refuse(answer, Rejected(self._why_down(), self._recovery.retry_after_s))

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
            steps, executor = self._recovery.timed(self._build)
        except Exception as error:  # whatever went wrong belongs to the caller of start()
            failure = error if isinstance(error, EngineFailed) else EngineFailed(words(error))
            self._recovery.failure = str(failure)
            self._close()
            self._on_event_loop(partial(refuse, ready, failure))
            return
        self._steps = steps
        self.max_model_len = steps.max_model_len
        self._on_event_loop(partial(resolve, ready, None))
        built: tuple[StepLoop, Executor] | None = (steps, executor)
        while built is not None:
            built = self._live_once(*built)
        self._close()

    def _live_once(self, steps: StepLoop, executor: Executor) -> tuple[StepLoop, Executor] | None:
        """Step until told to end, or until something fails; then what to go on with, if anything."""
        try:
            self._step_until_told(steps)
        except Exception as error:  # an executor, a policy: nothing may leave a stream without an end
            self._watch.leave()
            self._fail(error)
        try:
            self._wind_up(steps)
        finally:
            if self._recovery.outage is None:
                self._close()
            executor.close()
        return self._build_again(steps) if self._recovery.outage is not None else None

    def _fail(self, error: Exception) -> None:
        message = f"the engine failed: {words(error)}"
        self._recovery.failed(message, for_good=self._quitting, worked_until_s=self._watch.entered_s)

    def _build_again(self, old: StepLoop) -> tuple[StepLoop, Executor] | None:
        """A new executor and a new loop that goes on with the old one's records; ``None`` if there is to be none."""
        while self._recovery.outage is not None:
            self._pause(self._recovery.wait_s)
            if self._quitting:
                return None
            try:
                steps, executor = self._recovery.timed(self._build)
            except Exception as error:
                self._fail(error)
                continue
            steps.steps, steps.counters, steps.decisions = old.steps, old.counters, old.decisions
            if steps.speculator is not None and old.speculator is not None:
                steps.speculator.counters = old.speculator.counters
                steps.speculator.guesses = old.speculator.guesses
            self._emissions = []
            self._steps = steps
            self._recovery.back()
            return steps, executor
        return None

    def _pause(self, wait_s: float) -> None:
        """Wait, refusing who comes; a stop ends it early."""
        until_s = self._clock() + wait_s
        self._take_inbox()
        while not self._quitting and self._clock() < until_s:
            self._wake.wait(min(IDLE_CHECK_S, max(0.0, until_s - self._clock())))
            self._wake.clear()
            self._take_inbox()

    def _step_until_told(self, steps: StepLoop) -> None:
        started = False
        while True:
            self._take_inbox(TAKE_S if started else inf)
            if self._quitting:
                return
            self._watch.enter()
            started = steps.begin_step()
            self._publish()
            if started:
                self._emissions = steps.finish_step()
            if self._watch.leave():
                raise EngineFailed(self._watch.message)
            if not started:
                self._rest(steps)

    def _wind_up(self, steps: StepLoop) -> None:
        """Hand over what the last step gave, then end every stream that has no end, even if the step loop is broken."""
        try:
            self._publish()
            steps.abort_all(self._why_down())
        except Exception as error:
            self._recovery.failed(f"the engine failed: {words(error)}", for_good=True)
        for live in list(self._live.values()):
            end = self._last_words(live, live.text.finish())
            self._outbox.append((live.stream, end))
            self._retire(live, end.finish_reason or FinishReason.ERROR)
        self._send()

    def _last_words(self, live: LiveRequest, text: str) -> Delta:
        """The end of a request that the engine did not bring to one. What never began may be asked again, and is told when."""
        if self._outage() is not None and live.sequence.first_scheduled_s is None:
            return Delta("", (), FinishReason.SHED, self._why_down(), self._recovery.retry_after_s)
        return Delta(text, (), FinishReason.ERROR, self._why_down())

    def _close(self) -> None:
        """From here on nothing can be posted; what was posted before is answered."""
        with self._gate:
            self._closed = True
        self._take_inbox()

    def _take_inbox(self, most_s: float = inf) -> None:
        """What was posted, one by one, for about ``most_s``: each gap between answers' tokens would be longer by the rest."""
        until_s = self._clock() + most_s
        while self._inbox:
            self._inbox.popleft()()
            if self._clock() > until_s:
                break

    def _rest(self, steps: StepLoop) -> None:
        """Sleep until something arrives or the policy wants to be asked again."""
        if self._inbox:
            return
        wait_s = IDLE_CHECK_S if steps.wake_at_s is None else max(0.0, steps.wake_at_s - self._clock())
        self._wake.wait(min(wait_s, IDLE_CHECK_S))
        self._wake.clear()

    def _admit(self, stream: EngineStream, answer: asyncio.Future[None]) -> None:
        if self._closed or self._steps is None:
            self._on_event_loop(partial(refuse, answer, EngineFailed(self._why_down())))
            return
        if self._recovery.outage is not None:
            self._on_event_loop(partial(refuse, answer, Rejected(self._why_down(), self._recovery.retry_after_s)))
            return
        try:
            sequence = self._steps.submit(stream.request)
        except (Rejected, InvalidRequest) as error:
            self._on_event_loop(partial(refuse, answer, error))
            return
        except Exception as error:
            self._on_event_loop(partial(refuse, answer, EngineFailed(f"the engine failed: {words(error)}")))
            raise
        text = TextStream(self.tokenizer.token_bytes, stream.request.sampling.stop)
        self._live[sequence.sequence_id] = LiveRequest(sequence, stream, text)
        self._id_of[stream] = sequence.sequence_id
        self._on_event_loop(partial(resolve, answer, None))

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
            self._on_event_loop(partial(deliver, outbox))

    def _publish_one(self, emission: Emission) -> None:
        assert self._steps is not None
        live = self._live.get(emission.sequence.sequence_id)
        if live is None:
            return
        reason = emission.finish_reason
        if emission.token is not None:
            # A token that only ends the answer is none of its text, whatever it spells.
            ends = reason is FinishReason.STOP
            text = live.text.finish() if ends else live.text.feed(emission.token, last=reason is not None)
            ids: tuple[int, ...] = (emission.token,)
            live.told_tokens += 1
            if live.text.stopped:
                reason = FinishReason.STOP
                self._steps.end(emission.sequence, reason)
        else:
            text, ids = live.text.finish(), ()
        logprobs = emission.sequence.logprobs if ids and emission.finish_reason is not FinishReason.STOP else None
        delta = Delta(text, ids, reason, emission.message, emission.retry_after_s, logprobs)
        live.stream.cached_tokens = emission.sequence.cached_tokens
        self._outbox.append((live.stream, delta))
        if reason is not None:
            self._retire(live, reason)

    def _retire(self, live: LiveRequest, reason: FinishReason) -> None:
        del self._live[live.sequence.sequence_id]
        self._id_of.pop(live.stream, None)
        self._ended.add(live.sequence, reason, self._clock(), output_tokens=live.told_tokens)

    def _on_event_loop(self, action: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody listens any more
            self._event_loop.call_soon_threadsafe(action)
