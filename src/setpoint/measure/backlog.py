"""Reading of answers off the hot path: small slices while the run goes on, the rest after it.

Cost: an event takes about 1 us of one core to read where a stream's events repeat one another, else 4 us. During the run a
slice takes ``SLICE_S`` at most (plus at most one batch of events), every ``SLICE_PERIOD_S``: a stamp is then late by about
a millisecond with a probability of a few percent. What the slices do not manage waits until the load is over; more than
``UNREAD_ENDED_HIGH`` unread answers make the slices come more often, because their bytes are kept in memory.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from setpoint.measure.exchange import Exchange
from setpoint.measure.outcome import RequestOutcome, judge, read_answer
from setpoint.measure.running import RunningFigures
from setpoint.measure.sse import StreamReader

if TYPE_CHECKING:
    from setpoint.workload.plan import PlannedRequest

SLICE_S = 0.001
SLICE_PERIOD_S = 0.04
CROWDED_PERIOD_S = 0.003
UNREAD_ENDED_HIGH = 4096
LEFT_OPEN_S = 1.5
BATCH_CHUNKS = 32
BATCH_AGE_S = 1.0


@dataclass(slots=True, eq=False)
class Flight:
    """A request on its way: its exchange and, once a stream's body began, the reader of that stream.

    planned: with the instant and the phase it was intended for in the end. keep_text: whether the next turn of a
    conversation needs the answer. payload: its bytes, kept only where it may be sent again. attempts: how many exchanges
    there were; first: the first of several; before: the one before the present one. read_s: when it was last read.
    """

    planned: PlannedRequest
    exchange: Exchange
    keep_text: bool = False
    payload: bytes = b""
    reader: StreamReader | None = None
    attempts: int = 1
    first: Exchange | None = None
    before: Exchange | None = None
    read_s: float = 0.0

    def is_left_open(self, now_s: float) -> bool:
        """Whether ``[DONE]`` came a while ago and the server has not ended the body since, as it should."""
        exchange = self.exchange
        if not exchange.chunks or now_s - exchange.chunk_times_s[-1] < LEFT_OPEN_S:
            return False
        return b"[DONE]" in exchange.chunks[-1] if self.reader is None else self.reader.is_done

    def is_worth_reading(self, now_s: float) -> bool:
        """Whether enough is unread for a read while it is under way to be cheap, or what is unread is getting old."""
        if self.reader is None:
            return bool(self.exchange.chunks)
        unread = len(self.exchange.chunks) - self.reader.read_chunks
        return unread >= BATCH_CHUNKS or (unread > 0 and now_s - self.read_s >= BATCH_AGE_S)

    def try_again(self, exchange: Exchange) -> None:
        """Another attempt takes the place of the one that ended."""
        self.first = self.first or self.exchange
        self.before = self.exchange
        self.exchange = exchange
        self.reader = None
        self.attempts += 1

    def settle(self) -> bool:
        """At the cut-off: let an attempt that never reached a connection not have been; False if there was no other."""
        if self.exchange.sent_s is not None or self.exchange.connect_started_s is not None:
            return True
        if self.before is None:
            return False
        self.exchange = self.before
        self.attempts -= 1
        return True


class Backlog:
    """Flights whose answers are still to be read: the ended ones first, then those under way in turn."""

    def __init__(self, figures: RunningFigures, *, start_s: float, streaming: bool) -> None:
        self._figures = figures
        self._start_s = start_s
        self._streaming = streaming
        self._ended: deque[Flight] = deque()
        self._under_way: deque[Flight] = deque()
        self.outcomes: list[RequestOutcome] = []

    def add(self, flight: Flight) -> None:
        """A flight was sent."""
        self._under_way.append(flight)

    def end(self, flight: Flight) -> None:
        """A flight's exchange ended."""
        self._ended.append(flight)

    @property
    def period_s(self) -> float:
        """How long to wait until the next slice."""
        return CROWDED_PERIOD_S if len(self._ended) > UNREAD_ENDED_HIGH else SLICE_PERIOD_S

    def read_slice(self) -> None:
        """Read for about ``SLICE_S``."""
        until_s = monotonic() + SLICE_S
        while self._ended:
            if not self._advance(self._ended[0]):
                self._finish(self._ended.popleft())
            if monotonic() >= until_s:
                return
        for _ in range(len(self._under_way)):
            flight = self._under_way.popleft()
            now_s = monotonic()
            if flight.exchange.ended_s is None:
                if flight.is_worth_reading(now_s):
                    self._advance(flight)
                self._under_way.append(flight)
            if now_s >= until_s:
                return

    def read_rest(self, unended: list[Flight]) -> None:
        """Read everything, the flights cut off at the end included."""
        self._ended.extend(unended)
        while self._ended:
            self.read_now(self._ended.popleft())
        self._under_way.clear()

    def read_now(self, flight: Flight) -> tuple[RequestOutcome, str]:
        """Read all of one flight; returns its row and the text of its answer, if that is kept."""
        while self._advance(flight):
            pass
        return self._finish(flight)

    def _advance(self, flight: Flight) -> bool:
        """Read a batch of one flight's events; returns whether more are there."""
        exchange = flight.exchange
        if flight.reader is None:
            if not exchange.chunks or not exchange.is_event_stream:
                return False
            flight.reader = StreamReader(keep_text=flight.keep_text)
        flight.read_s = monotonic()
        known = len(flight.reader.event_times_s)
        more = flight.reader.advance(exchange.chunk_times_s, exchange.chunks)
        planned = flight.planned
        self._figures.take_tokens(flight.reader, known, planned.phase, self._start_s + planned.intended_s)
        return more

    def _finish(self, flight: Flight) -> tuple[RequestOutcome, str]:
        answer = read_answer(flight.exchange, flight.reader, keep_text=flight.keep_text)
        row = judge(
            flight.planned,
            flight.exchange,
            answer,
            start_s=self._start_s,
            streaming=self._streaming,
            attempts=flight.attempts,
            first=flight.first,
        )
        counted = len(flight.reader.event_times_s) if flight.reader is not None else 0
        self._figures.take_outcome(row, counted, flight.reader)
        self.outcomes.append(row)
        flight.exchange.chunks.clear()
        flight.reader = None
        return row, "" if answer is None else answer.text
