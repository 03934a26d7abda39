"""Reading of answers off the hot path: small slices while the run goes on, the rest after it.

Cost: an event takes about 4 us of one core to read. During the run a slice takes ``SLICE_S`` at most (plus at most one
batch of events), every ``SLICE_PERIOD_S``: a stamp is then late by about a millisecond with a probability of a few
percent. What the slices do not manage waits until the load is over; more than ``UNREAD_ENDED_HIGH`` unread answers make
the slices come more often, because their bytes are kept in memory.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from setpoint.measure.exchange import Exchange
from setpoint.measure.outcome import RequestOutcome, judge
from setpoint.measure.running import RunningFigures
from setpoint.measure.sse import StreamReader

if TYPE_CHECKING:
    from setpoint.workload.plan import PlannedRequest

SLICE_S = 0.001
SLICE_PERIOD_S = 0.04
CROWDED_PERIOD_S = 0.003
UNREAD_ENDED_HIGH = 4096


@dataclass(slots=True, eq=False)
class Flight:
    """A planned request on its way: its exchange and, once a stream's headers came, the reader of that stream."""

    planned: PlannedRequest
    exchange: Exchange
    reader: StreamReader | None = None


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
            if flight.exchange.ended_s is None:
                self._advance(flight)
                self._under_way.append(flight)
            if monotonic() >= until_s:
                return

    def read_rest(self, unended: list[Flight]) -> None:
        """Read everything, the flights cut off at the end included."""
        self._ended.extend(unended)
        while self._ended:
            while self._advance(self._ended[0]):
                pass
            self._finish(self._ended.popleft())
        self._under_way.clear()

    def _advance(self, flight: Flight) -> bool:
        """Read a batch of one flight's events; returns whether more are there."""
        exchange = flight.exchange
        if flight.reader is None:
            if exchange.status != 200 or not exchange.is_event_stream:
                return False
            flight.reader = StreamReader()
        known = len(flight.reader.event_times_s)
        more = flight.reader.advance(exchange.chunk_times_s, exchange.chunks)
        planned = flight.planned
        self._figures.take_tokens(flight.reader, known, planned.phase, self._start_s + planned.intended_s)
        return more

    def _finish(self, flight: Flight) -> None:
        row = judge(flight.planned, flight.exchange, flight.reader, start_s=self._start_s, streaming=self._streaming)
        counted = len(flight.reader.event_times_s) if flight.reader is not None else 0
        self._figures.take_outcome(row, counted)
        self.outcomes.append(row)
        flight.exchange.chunks.clear()
        flight.reader = None
