"""From the engine's thread to the event loop: futures, deltas, and the record of requests that ended."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TypeVar

from setpoint.engine.request import Delta, FinishReason, RequestStats
from setpoint.engine.sequence import Sequence
from setpoint.engine.stream import EngineStream

Answer = TypeVar("Answer")
STATS_RING = 1 << 12


class EndedRequests:
    """The newest ``STATS_RING`` ended requests by serial number. Written by one thread, read by any."""

    def __init__(self) -> None:
        self._ring: deque[tuple[int, RequestStats]] = deque(maxlen=STATS_RING)

    def add(self, sequence: Sequence, reason: FinishReason, now_s: float, *, output_tokens: int) -> None:
        """Record a request that ended now, whose reader was given ``output_tokens``."""
        stats = RequestStats(
            name=sequence.request.name,
            arrived_s=sequence.arrived_s,
            first_scheduled_s=sequence.first_scheduled_s,
            first_token_s=sequence.first_token_s,
            ended_s=now_s,
            prompt_tokens=sequence.prompt_tokens,
            cached_tokens=sequence.cached_tokens,
            output_tokens=output_tokens,
            preemptions=sequence.preemptions,
            finish_reason=reason,
            streaming=sequence.request.streaming,
            cap_tokens=sequence.max_tokens,
            request_class=sequence.request.request_class,
        )
        # Number and record go in together: a reader on the other thread sees both or neither.
        self._ring.append((self._ring[-1][0] + 1 if self._ring else 0, stats))

    def since(self, number: int) -> tuple[list[RequestStats], int]:
        """Those numbered ``number`` and later, and the next number."""
        kept = list(self._ring)
        if not kept:
            return [], 0
        first = kept[0][0]
        return [stats for _, stats in kept[max(0, number - first) :]], first + len(kept)


def words(error: Exception) -> str:
    """What an exception says, or what it is called if it says nothing."""
    return str(error) or type(error).__name__


def resolve(answer: asyncio.Future[Answer], value: Answer) -> None:
    """Answer a question, unless nobody waits any more."""
    if not answer.done():
        answer.set_result(value)


def refuse(answer: asyncio.Future[Answer], error: Exception) -> None:
    """Refuse to answer, unless nobody waits any more."""
    if not answer.done():
        answer.set_exception(error)


def deliver(outbox: list[tuple[EngineStream, Delta]]) -> None:
    """Deltas to their streams, in order."""
    for stream, delta in outbox:
        stream.push(delta)
