"""The requests of a batch through one server: as many at once as it is good for, each until it has ended for good.

A request that the server did not take (429, 503, 529, no connection) is sent again for as long as it takes, at
``Retry-After`` or after a growing wait. One that was taken and came to nothing ``TRIES_MAX`` times is put off to the next
round, when the others have had their turn. Its failure is written if it fails then too, although the server has answered what
was sent since; where nothing is answered any more, after many rounds. What is not written is left for the next run.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

from setpoint.loop.errors import BadInput
from setpoint.loop.offline.concurrency import Concurrency
from setpoint.loop.offline.judging import Judged, Meaning, judge
from setpoint.loop.offline.places import Places
from setpoint.loop.offline.request_line import BatchRequest, result_id
from setpoint.loop.offline.result_line import Result
from setpoint.loop.offline.sender import Sender
from setpoint.loop.offline.work import Work
from setpoint.measure.outcome import SHED_STATUSES
from setpoint.measure.retrying import wait_s

TRIES_MAX = 8
ROUNDS_MAX = 12
WAIT_MAX_S = 600.0
SYNC_EVERY_S = 1.0


class GaveUp(Exception):
    """Nothing was answered for too long; what is not done is left for the next run."""


@dataclass(frozen=True, slots=True)
class Models:
    """Which model is asked for: ``instead`` of what a body names, or where a body names none, the ``default``."""

    instead: str | None = None
    default: str | None = None

    def named(self, request: BatchRequest) -> dict[str, object]:
        """The body to send."""
        name = self.instead or request.model or self.default
        return request.body if name is None else request.body | {"model": name}


class Drive:
    """One run of ``work`` over ``sender``. Raises ``GaveUp`` after ``give_up_s`` of nothing but trouble.

    clock, sleep: the time by which it waits before it sends a request again, in seconds.
    """

    def __init__(
        self,
        work: Work,
        sender: Sender,
        concurrency: Concurrency,
        models: Models,
        *,
        give_up_s: float,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._work = work
        self._sender = sender
        self._concurrency = concurrency
        self._models = models
        self._give_up_s = give_up_s
        self._clock = clock
        self._sleep = sleep
        self._places = Places(concurrency)
        self._trouble_since_s: float | None = None
        self._answered_sent_s = -math.inf
        """When the latest sent of all that was answered had been sent."""
        self._put_off_s: dict[int, float] = {}
        """By position: when a request that was put off had failed last."""
        self._fruitless_rounds = 0

    async def run(self) -> None:
        """Until every request has ended. Raises ``GaveUp``, or ``BadInput`` for what no retry mends."""
        self._work.tally.started_s = self._clock()
        syncing = asyncio.create_task(self._sync_now_and_then())
        try:
            while left := self._work.index.left:
                await self._round()
                self._fruitless_rounds = self._fruitless_rounds + 1 if self._work.index.left == left else 0
        finally:
            syncing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await syncing
            self._work.output.sync()

    async def _round(self) -> None:
        """A turn for each request that has no line yet. Raises the first of what went wrong."""
        try:
            async with asyncio.TaskGroup() as group:
                for position, request in self._work.index.unanswered():
                    await self._places.take()
                    group.create_task(self._one(position, request))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    async def _one(self, position: int, request: BatchRequest) -> None:
        """One request from the first try of this round to its line in the output, or until it is put off to the next round."""
        tally = self._work.tally
        name = result_id(self._work.index.digest(position))
        body = self._models.named(request)
        tries = waits = 0
        to_blame = self._is_to_blame(position)
        tally.retried += position in self._put_off_s
        tally.under_way, tally.limit = self._places.taken, self._concurrency.limit
        try:
            while True:
                sent_s = self._clock()
                exchange = await self._sender.post(request.url, body, name)
                judged = judge(exchange)
                if judged.meaning in (Meaning.ANSWERED, Meaning.ERROR):
                    self._answered_sent_s = max(self._answered_sent_s, sent_s)
                    break
                if judged.meaning is Meaning.LOCKED_OUT:
                    raise BadInput(f"--api-key: the server does not take it ({judged.words}); what is done is kept")
                self._note_trouble(judged, refused=exchange.status in SHED_STATUSES)
                tries += judged.meaning is Meaning.BROKEN
                if tries == TRIES_MAX:
                    if to_blame:
                        break
                    self._put_off_s[position] = self._clock()
                waits += 1
                await self._sleep(min(wait_s(exchange, waits, seed=0, index=position), WAIT_MAX_S))
                if tries == TRIES_MAX:
                    return
                tally.retried += 1
            self._end(position, request, name, exchange.status, judged)
        finally:
            self._places.give_back()
            tally.under_way, tally.limit = self._places.taken, self._concurrency.limit

    def _is_to_blame(self, position: int) -> bool:
        """Whether a request that fails in the round that begins is at fault itself, and not the server.

        It is if it failed in an earlier round, and what was sent after that has been answered. Answers to what was sent before
        say nothing: a server that goes down may still end what it has.

        If nothing is answered there may be nobody left to tell it by. Then every request that is left is taken for such after
        ``ROUNDS_MAX`` rounds in a row in which none ended. A round of tries and waits takes some 35 s where all that is left is
        under way at once, so this comes after some 8 minutes; in an outage with ten times as many left, an hour of
        ``give_up_s`` comes first.
        """
        return self._fruitless_rounds >= ROUNDS_MAX or self._answered_sent_s > self._put_off_s.get(position, math.inf)

    def _end(self, position: int, request: BatchRequest, name: str, status: int | None, judged: Judged) -> None:
        """Write the line, count it afterwards.

        It is marked first: what is marked without a line is asked again by the next run, while a line without a mark would have
        its older failure put back beside it.
        """
        failed = judged.meaning is not Meaning.ANSWERED
        error = {"code": judged.code, "message": judged.words} if failed else None
        answered = status if judged.body is not None else None
        self._work.index.mark_answered(position)
        self._work.output.append(Result(name, request.custom_id, answered, judged.body, error).line())
        now_s = self._clock()
        prompt_tokens, output_tokens = judged.tokens
        self._work.tally.end(now_s, failed=failed, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
        self._put_off_s.pop(position, None)
        if judged.meaning is not Meaning.BROKEN:
            self._note_answer(now_s, prompt_tokens + output_tokens)

    def _note_answer(self, now_s: float, tokens: int) -> None:
        """The server answered, be it that the request is wrong."""
        self._trouble_since_s = None
        self._work.tally.last_trouble = ""
        self._concurrency.answered(now_s, tokens)

    def _note_trouble(self, judged: Judged, *, refused: bool) -> None:
        now_s = self._clock()
        self._work.tally.last_trouble = judged.words
        if refused:
            self._work.tally.refused += 1
            self._concurrency.refused(now_s)
        if self._trouble_since_s is None:
            self._trouble_since_s = now_s
        elif now_s - self._trouble_since_s >= self._give_up_s:
            raise GaveUp(f"no request was answered for {self._give_up_s:g} s: {judged.words}")

    async def _sync_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(SYNC_EVERY_S)
            await asyncio.to_thread(self._work.output.sync)
