"""The open-loop load generator: each request is sent at its intended time, whatever became of those before it.

Everything runs on one event loop. The dispatcher is one timer; answers are only stamped and kept as they arrive; a tick
reads some of them for the live figures. Nothing is skipped: what cannot be sent in time is sent late, and its latency
counts from the intended time.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from setpoint.measure.backlog import Backlog, Flight
from setpoint.measure.body import RequestWriter
from setpoint.measure.event_loop import LagMonitor, collector_paused
from setpoint.measure.exchange import ErrorKind, Exchange
from setpoint.measure.options import LoadOptions
from setpoint.measure.outcome import dropped
from setpoint.measure.pool import ConnectionPool, descriptors_for
from setpoint.measure.result import LoadResult
from setpoint.measure.running import Progress, RunningFigures
from setpoint.measure.self_check import CpuMeter, client_check
from setpoint.measure.server_side import ServerSide, ServerWatch, join_requests
from setpoint.measure.target import Target
from setpoint.measure.timer import DueTimer
from setpoint.record import Phase

if TYPE_CHECKING:
    from setpoint.workload.plan import LoadPlan

OnProgress = Callable[[Progress], None]

LEAD_S = 0.05
PREPARED_MAX = 64
PREPARED_PER_DISPATCH = 8
SENDS_PER_DISPATCH = 32
SWEEP_PERIOD_S = 0.25
PROGRESS_PERIOD_S = 0.25


async def run_load(
    target: Target, plan: LoadPlan, options: LoadOptions | None = None, on_progress: OnProgress | None = None
) -> LoadResult:
    """Put the planned load on the target and return what happened to every request of the plan.

    ``on_progress`` is called at most four times a second, and once at the end. Raises ``ValueError`` for a plan that
    cannot be sent (intended times out of order, token ids for the chat endpoint); what the server does, refusing every
    connection included, is in the rows.
    """
    return await _LoadRun(target, plan, options or LoadOptions(), on_progress).run()


class _LoadRun:
    """The state of one run."""

    def __init__(self, target: Target, plan: LoadPlan, options: LoadOptions, on_progress: OnProgress | None) -> None:
        self._requests = plan.requests
        _check_order(plan)
        self._phases = plan.phases
        self._options = options
        self._on_progress = on_progress
        self._end_s = max((span.end_s for span in plan.phases), default=0.0)
        self._run_id = options.run_id or secrets.token_hex(4)
        self._writer = RequestWriter(target, options)
        self._pool = ConnectionPool(
            target,
            limit=descriptors_for(options.in_flight_limit),
            connect_timeout_s=options.connect_timeout_s,
            idle_s=options.idle_connection_s,
        )
        self._watch = ServerWatch(target) if options.watch_server else None
        self._lag = LagMonitor()
        self._figures = RunningFigures(options.slos)
        self._prepared: deque[bytes] = deque()
        self._next_to_prepare = 0
        self._next = 0
        self._active: dict[Exchange, Flight] = {}
        self._ended = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._start_s = 0.0
        self._progress_due_s = 0.0
        self._sweep_due_s = 0.0
        self._over: asyncio.Future[None]
        self._arrivals: DueTimer
        self._backlog: Backlog

    async def run(self) -> LoadResult:
        """Send everything, wait for the answers until the drain is over, read them, and put the result together."""
        cpu = CpuMeter()
        self._over = asyncio.get_running_loop().create_future()
        self._prepare(PREPARED_MAX)
        await self._pool.resolve()
        if self._watch is not None:
            await self._watch.start()
        with collector_paused():
            started_unix_s = time.time() + LEAD_S
            self._start_s = monotonic() + LEAD_S
            self._arrivals = DueTimer(self._guarded(self._dispatch))
            self._backlog = Backlog(self._figures, start_s=self._start_s, streaming=self._options.streaming)
            try:
                load_cpu = CpuMeter()
                self._lag.start()
                self._arrivals.set(self._start_s)
                self._later("tick", 0.0, self._tick)
                self._later("cut_off", LEAD_S + self._end_s + self._options.drain_s, self._cut_off)
                if not self._requests:
                    self._cut_off()
                await self._over
                duration_s = monotonic() - self._start_s
                shares = load_cpu.thread_share(), load_cpu.machine_share()
            finally:
                self._stop_timers()
                unended = list(self._active.values())
                self._active.clear()
                await self._pool.close()
                if self._watch is not None:
                    await self._watch.stop()
            self._read_rest(unended)
            self._report(self._start_s + duration_s, finished=True)
        server = self._watch.result(self._start_s) if self._watch is not None else ServerSide()
        return self._result(server, cpu, shares, started_unix_s, duration_s)

    def _result(
        self, server: ServerSide, cpu: CpuMeter, shares: tuple[float, float], started_unix_s: float, duration_s: float
    ) -> LoadResult:
        rows = self._backlog.outcomes
        seen = {row.index for row in rows}
        for planned in self._requests:
            if planned.index not in seen:
                rows.append(dropped(planned, self._request_id(planned.index), streaming=self._options.streaming))
        rows.sort(key=lambda row: (row.intended_s, row.index))
        assert len(rows) == len(self._requests)
        join_requests(rows, server)
        check = client_check(
            rows,
            self._lag,
            cpu_s=cpu.thread_s(),
            cpu_share=shares[0],
            machine_cpu_share=shares[1],
            connections_opened=self._pool.opened,
            in_flight_peak=self._pool.in_flight_peak,
            held_back=self._pool.held_back,
        )
        return LoadResult(
            outcomes=rows,
            phases=list(self._phases),
            options=self._options,
            server=server,
            client=check,
            started_unix_s=started_unix_s,
            duration_s=duration_s,
        )

    # Sending.

    def _dispatch(self) -> None:
        """Send what is due, a bounded number at a time, and set the timer for the next."""
        for _ in range(SENDS_PER_DISPATCH):
            if self._next == len(self._requests):
                return
            due_s = self._start_s + self._requests[self._next].intended_s
            if due_s > monotonic():
                break
            self._send_next()
        self._prepare(PREPARED_PER_DISPATCH)
        if self._next < len(self._requests):
            self._arrivals.set(self._start_s + self._requests[self._next].intended_s)

    def _send_next(self) -> None:
        if not self._prepared:
            self._prepare(1)
        planned = self._requests[self._next]
        self._next += 1
        exchange = Exchange(
            request_id=self._request_id(planned.index),
            payload=self._prepared.popleft(),
            on_end=self._on_end,
            dispatched_s=monotonic(),
        )
        flight = Flight(planned, exchange)
        self._active[exchange] = flight
        self._backlog.add(flight)
        self._pool.submit(exchange)

    def _prepare(self, most: int) -> None:
        """Write the bytes of the next requests ahead of their time, ``most`` of them, never over ``PREPARED_MAX``."""
        for _ in range(min(most, PREPARED_MAX - len(self._prepared), len(self._requests) - self._next_to_prepare)):
            planned = self._requests[self._next_to_prepare]
            self._prepared.append(self._writer.write(planned, self._request_id(planned.index)))
            self._next_to_prepare += 1

    def _request_id(self, index: int) -> str:
        return f"{self._run_id}-{index}"

    # What happens meanwhile.

    def _on_end(self, exchange: Exchange) -> None:
        flight = self._active.pop(exchange, None)
        if flight is None:
            return  # It was cut off.
        self._ended += 1
        self._backlog.end(flight)
        if self._ended == len(self._requests):
            self._cut_off()

    def _cut_off(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _tick(self) -> None:
        now_s = monotonic()
        if now_s >= self._sweep_due_s:
            self._sweep_due_s = now_s + SWEEP_PERIOD_S
            self._sweep(now_s)
        self._backlog.read_slice()
        if now_s >= self._progress_due_s:
            self._progress_due_s = now_s + PROGRESS_PERIOD_S
            self._report(now_s)
        self._later("tick", self._backlog.period_s, self._tick)

    def _sweep(self, now_s: float) -> None:
        """End requests that took too long and close connections that were idle too long."""
        self._pool.prune()
        limit_s = self._options.request_timeout_s
        # Only what a connection has taken up: what the client's own limit holds back has not begun.
        late = [
            exchange
            for exchange in self._active
            if (begun_s := exchange.connect_started_s or exchange.sent_s) is not None and now_s - begun_s > limit_s
        ]
        for exchange in late:
            self._pool.fail(exchange, ErrorKind.TIMEOUT, f"no complete answer within {limit_s:g} s")

    def _report(self, now_s: float, *, finished: bool = False) -> None:
        elapsed_s = max(0.0, now_s - self._start_s)
        phase = self._phase_at(elapsed_s)
        if phase is not self._figures.phase:
            self._figures.start_phase(phase)
        if self._on_progress is None:
            return
        figures = self._figures
        waiting = self._pool.waiting
        self._on_progress(
            Progress(
                phase=phase,
                elapsed_s=elapsed_s,
                total_s=self._end_s,
                offered=self._next,
                sent=self._next - waiting,
                done=self._ended,
                in_flight=len(self._active) - waiting,
                waiting=waiting,
                shed=figures.shed,
                failed=figures.failed,
                ttft_p50_s=figures.ttft_s.percentile(50),
                ttft_p95_s=figures.ttft_s.percentile(95),
                itl_p50_s=figures.itl_s.percentile(50),
                itl_p95_s=figures.itl_s.percentile(95),
                goodput_fraction=figures.goodput_fraction,
                output_tokens_per_s=figures.tokens_per_s(now_s),
                draining=elapsed_s > self._end_s,
                finished=finished,
            )
        )

    def _phase_at(self, elapsed_s: float) -> Phase:
        for span in self._phases:
            if elapsed_s < span.end_s:
                return span.phase
        return self._phases[-1].phase if self._phases else Phase.SUSTAINED

    def _read_rest(self, unended: list[Flight]) -> None:
        """Read what the slices left; requests that were never handed to a connection stay without a row here."""
        begun = [flight for flight in unended if flight.exchange.sent_s or flight.exchange.connect_started_s]
        self._backlog.read_rest(begun)

    # Timers.

    def _later(self, name: str, delay_s: float, callback: Callable[[], None]) -> None:
        """Set the timer ``name``."""
        self._timers[name] = asyncio.get_running_loop().call_later(delay_s, self._guarded(callback))

    def _guarded(self, callback: Callable[[], None]) -> Callable[[], None]:
        """The callback of a timer; an exception in it ends the run with that exception."""

        def guarded() -> None:
            try:
                callback()
            except Exception as error:
                if not self._over.done():
                    self._over.set_exception(error)

        return guarded

    def _stop_timers(self) -> None:
        self._lag.stop()
        self._arrivals.close()
        for timer in self._timers.values():
            timer.cancel()


def _check_order(plan: LoadPlan) -> None:
    """Raise ``ValueError`` for a plan whose arrivals are not in order of time."""
    last_s = 0.0
    for planned in plan.requests:
        if planned.intended_s < last_s:
            raise ValueError(f"plan: request {planned.index} is intended at {planned.intended_s} s, before {last_s} s")
        last_s = planned.intended_s
