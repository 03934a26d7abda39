"""Sends what is due, when it is due, and follows each request to its end: retries, next turns, free slots.

Nothing is skipped: what cannot be sent in time is sent late, and its latency counts from the intended time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from setpoint.measure.agenda import Agenda, Departure
from setpoint.measure.backlog import Backlog, Flight
from setpoint.measure.body import RequestWriter
from setpoint.measure.conversations import Conversations
from setpoint.measure.exchange import Exchange
from setpoint.measure.options import LoadOptions
from setpoint.measure.outcome import RequestOutcome, dropped
from setpoint.measure.pool import ConnectionPool
from setpoint.measure.retrying import may_retry, wait_s
from setpoint.record import CONVERSATION_OVER, Phase, RequestClass

if TYPE_CHECKING:
    from setpoint.workload.plan import LoadPlan, PlannedRequest

PREPARED_MAX = 64
PREPARED_PER_DISPATCH = 8
SENDS_PER_DISPATCH = 32

# Where time ends a closed loop, users whose requests fail this soon would use up the plan in no time: they rest.
FAILED_AT_ONCE_S = 0.1
REST_S = 0.01
REST_MAX_S = 1.0


class Dispatcher:
    """The sending side of one run.

    phase: that of the request sent last. offered: requests that came to be intended so far; ended: those of them that are
    over. lost: rows of turns whose conversation broke off before them. ``prepare`` may be called before ``begin``,
    everything else after it.
    """

    def __init__(
        self, plan: LoadPlan, options: LoadOptions, *, writer: RequestWriter, pool: ConnectionPool, run_id: str
    ) -> None:
        self._agenda = Agenda(plan)
        self._conversations = Conversations(plan)
        self._options = options
        self._writer = writer
        self._pool = pool
        self._run_id = run_id
        self._prepared: deque[bytes] = deque()
        self._next_to_prepare = 0
        self._active: dict[Exchange, Flight] = {}
        self._resting: set[Flight] = set()
        self._start_s = 0.0
        self._until_s: float | None = None
        self._backlog: Backlog
        self._wake: Callable[[float], None]
        self._on_over: Callable[[Exception | None], None]
        self._on_used_up: Callable[[float], None]
        self._users = plan.concurrency if plan.concurrency is not None and plan.by_time else 0
        self._in_vain = 0
        self._woken_for_s: float | None = None
        self.phase = plan.phases[0].phase if plan.phases else Phase.SUSTAINED
        self.offered = 0
        self.ended = 0
        self.lost: list[RequestOutcome] = []

    def begin(
        self,
        *,
        start_s: float,
        until_s: float | None,
        backlog: Backlog,
        wake: Callable[[float], None],
        on_over: Callable[[Exception | None], None],
        on_used_up: Callable[[float], None],
    ) -> None:
        """Start at ``start_s`` on the clock. until_s: the cut-off on the plan's axis, ``None`` for none.

        wake: to call ``dispatch`` at an instant of the clock, in place of the one named before. on_over: to call when
        nothing is left to be sent or to be waited for, or with what went wrong here. on_used_up: to call with the instant on
        the plan's axis at which a closed loop by time has no request left for a free slot.
        """
        self._start_s = start_s
        self._until_s = until_s
        self._backlog = backlog
        self._wake = wake
        self._on_over = on_over
        self._on_used_up = on_used_up
        self._look_ahead()

    def dispatch(self) -> None:
        """Send what is due, a bounded number at a time, and ask to be woken for the next."""
        for _ in range(SENDS_PER_DISPATCH):
            due_s = self._agenda.next_due_s()
            if due_s is None or self._start_s + due_s > monotonic():
                break
            self._send(self._agenda.take())
        self.prepare(PREPARED_PER_DISPATCH)
        self._woken_for_s = None
        self._look_ahead()

    def prepare(self, most: int = PREPARED_MAX) -> None:
        """Write the bytes of the next requests ahead of their time, ``most`` of them, never over ``PREPARED_MAX``."""
        starters = self._agenda.starters
        for _ in range(min(most, PREPARED_MAX - len(self._prepared), len(starters) - self._next_to_prepare)):
            planned = starters[self._next_to_prepare]
            self._prepared.append(self._writer.write(planned, self._request_id(planned)))
            self._next_to_prepare += 1

    def shorten(self, plan: LoadPlan, until_s: float) -> None:
        """Go by a shorter plan and an earlier cut-off from now on."""
        self._until_s = until_s
        self._agenda.shorten(plan)
        kept = [row for row in self.lost if self._agenda.offers(row.intended_s)]
        self.offered -= len(self.lost) - len(kept)
        self.ended -= len(self.lost) - len(kept)
        self.lost = kept
        self._look_ahead()

    def begun_before(self, instant_s: float) -> list[Exchange]:
        """Exchanges under way that a connection took up before ``instant_s``; what is held back has not begun."""
        return [
            exchange
            for exchange in self._active
            if (begun_s := exchange.connect_started_s or exchange.sent_s) is not None and begun_s < instant_s
        ]

    def left_open(self, now_s: float) -> list[Exchange]:
        """Exchanges whose answer ended with ``[DONE]`` a while ago though the server left them open."""
        return [flight.exchange for flight in self._active.values() if flight.is_left_open(now_s)]

    @property
    def active(self) -> int:
        """Requests that are under way or held back by a limit of the client."""
        return len(self._active)

    def cut_off(self) -> tuple[list[Flight], list[RequestOutcome]]:
        """Let go of everything: flights that are still to be read, and rows of what was never sent."""
        flights = list(self._resting)
        rows = [self._dropped(planned) for planned in self._agenda.unsent()]
        for flight in self._active.values():
            if flight.settle():
                flights.append(flight)
            else:
                rows.append(self._dropped(flight.planned))
                rows[-1].dispatched_s = (flight.exchange.dispatched_s or 0.0) - self._start_s
        self._active.clear()
        self._resting.clear()
        return flights, rows + self.lost

    def _dropped(self, planned: PlannedRequest) -> RequestOutcome:
        return dropped(planned, self._request_id(planned), streaming=self._options.streaming)

    def _request_id(self, planned: PlannedRequest) -> str:
        return f"{self._run_id}-{planned.index}"

    def _send(self, departure: Departure) -> None:
        payload = departure.payload
        if payload is None:
            if not self._prepared:
                self.prepare(1)
            payload = self._prepared.popleft()
        planned = departure.planned
        exchange = Exchange(self._request_id(planned), payload, self._on_end, dispatched_s=monotonic())
        flight = departure.flight
        if flight is None:
            self.offered += 1
            self.phase = planned.phase
            flight = Flight(planned, exchange, keep_text=self._conversations.goes_on(planned.index))
            if self._options.retries:
                flight.payload = payload
        else:
            self._resting.discard(flight)
            flight.try_again(exchange)
        self._active[exchange] = flight
        self._backlog.add(flight)
        self._pool.submit(exchange)

    def _on_end(self, exchange: Exchange) -> None:
        flight = self._active.pop(exchange, None)
        if flight is None:
            return  # It was cut off.
        try:
            self._follow_up(flight)
            self._look_ahead()
        except Exception as error:  # The event loop would only log it, and the run would wait for nothing.
            self._on_over(error)

    def _follow_up(self, flight: Flight) -> None:
        """What comes after the end of an exchange: another attempt, the next turn, or a free slot."""
        if self._tries_again(flight):
            return
        self.ended += 1
        if flight.keep_text:
            self._go_on(flight)
        else:
            self._backlog.end(flight)
            self._free(flight.exchange)

    def _tries_again(self, flight: Flight) -> bool:
        exchange = flight.exchange
        if flight.attempts > self._options.retries or not may_retry(exchange):
            return False
        assert exchange.ended_s is not None
        seed, index = self._options.seed or 0, flight.planned.index
        rest_s = wait_s(exchange, flight.attempts, seed=seed, index=index)
        if rest_s > self._options.request_timeout_s:
            return False  # No client waits so long, whatever the server says.
        due_s = exchange.ended_s - self._start_s + rest_s
        if self._until_s is not None and due_s >= self._until_s:
            return False
        self._resting.add(flight)
        self._agenda.add(Departure(due_s, flight.planned, flight.payload, flight))
        return True

    def _go_on(self, flight: Flight) -> None:
        """Read the answer of a turn and put the next on the agenda, or leave out the turns that can be no more."""
        row, text = self._backlog.read_now(flight)
        known_s = self._known_s(flight.exchange)
        if row.request_class is not RequestClass.OK:
            self._leave_out(self._conversations.lost_turns(flight.planned, known_s))
            self._free(flight.exchange)
            return
        turn = self._conversations.next_turn(flight.planned, row, text, known_s)
        if not self._agenda.offers(turn.intended_s):
            self._free(flight.exchange)
            return
        turn = replace(turn, phase=self._agenda.phase(turn, turn.intended_s))
        payload = self._writer.write(turn, self._request_id(turn), self._conversations.before(turn))
        self._agenda.add(Departure(turn.intended_s, turn, payload))

    def _leave_out(self, turns: list[PlannedRequest]) -> None:
        for turn in turns:
            if self._agenda.offers(turn.intended_s):
                turn = replace(turn, phase=self._agenda.phase(turn, turn.intended_s))
                self.lost.append(self._dropped(turn))
                self.lost[-1].error = CONVERSATION_OVER
                self.offered += 1
                self.ended += 1

    def _known_s(self, exchange: Exchange) -> float:
        """When the client knew that the exchange had ended, on the plan's axis."""
        assert exchange.known_s is not None
        return exchange.known_s - self._start_s

    def _free(self, exchange: Exchange) -> None:
        """The user of a slot may send again."""
        if self._agenda.used_up_s is None:
            self._agenda.free(self._known_s(exchange) + self._rest_s(exchange))
            if self._agenda.used_up_s is not None:
                self._on_used_up(self._agenda.used_up_s)

    def _rest_s(self, exchange: Exchange) -> float:
        """How long a user rests after this: twice as long with each round of requests that all failed at once."""
        assert exchange.ended_s is not None
        assert exchange.dispatched_s is not None
        served = exchange.error is None and exchange.status is not None and 200 <= exchange.status < 300
        if not self._users or served or exchange.ended_s - exchange.dispatched_s > FAILED_AT_ONCE_S:
            self._in_vain = 0
            return 0.0
        rounds = self._in_vain // self._users
        self._in_vain += 1
        return min(REST_MAX_S, REST_S * 2.0 ** min(rounds, 16))

    def _look_ahead(self) -> None:
        due_s = self._agenda.next_due_s()
        if due_s is None:
            if not self._active:
                self._on_over(None)
        elif due_s != self._woken_for_s:
            self._woken_for_s = due_s
            self._wake(self._start_s + due_s)
