"""The load generator: each request is sent at its intended time, whatever became of those before it.

Everything runs on one event loop. The dispatcher is one timer; answers are only stamped and kept as they arrive; a tick
reads some of them for the live figures. What each request became is in its row, timed from its intended send.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from setpoint.measure.agenda import check_order
from setpoint.measure.backlog import Backlog
from setpoint.measure.body import RequestWriter
from setpoint.measure.dispatcher import Dispatcher
from setpoint.measure.enough import Enough, plan_until
from setpoint.measure.event_loop import LagMonitor, collector_paused
from setpoint.measure.exchange import ErrorKind
from setpoint.measure.options import LoadOptions
from setpoint.measure.outcome import RequestOutcome
from setpoint.measure.pool import ConnectionPool
from setpoint.measure.result import Ended, LoadResult, spans_of_run
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
SWEEP_PERIOD_S = 0.25
PROGRESS_PERIOD_S = 0.25


async def run_load(
    target: Target,
    plan: LoadPlan,
    options: LoadOptions | None = None,
    on_progress: OnProgress | None = None,
    *,
    start_s: float | None = None,
    enough: Enough | None = None,
    keep: bool = False,
) -> LoadResult:
    """Put the planned load on the target and return what happened to every request of the plan.

    start_s: the instant of ``time.monotonic`` at which the plan's zero lies, so that several processes share one time
    axis; without it, as soon as everything is ready. An instant that is already past makes its requests late, and
    shows as the client's lag. ``on_progress`` is called at most four times a second, and once at the end.

    Turns of a session and requests of a closed loop have a row if they came to be intended before the end of the last
    phase (``LoadPlan``). Raises ``ValueError`` for a plan that cannot be sent (intended times out of order, token ids for
    the chat endpoint or for sessions); what the server does, refusing every connection included, is in the rows.

    enough: asked now and then whether to stop sending; the plan then ends at that instant, and so does its last phase. keep: a
    cancellation while requests are sent is a cut-off at that instant, and what was measured by then is returned.
    """
    return await _LoadRun(target, plan, options or LoadOptions(), on_progress, enough, keep=keep).run(start_s)


class _LoadRun:
    """The state of one run."""

    def __init__(
        self,
        target: Target,
        plan: LoadPlan,
        options: LoadOptions,
        on_progress: OnProgress | None,
        enough: Enough | None = None,
        *,
        keep: bool = False,
    ) -> None:
        check_order(plan)
        self._enough = enough
        self._keep = keep
        self._ended = Ended.PLAN
        self._looks_s = list(enough.looks_s) if enough is not None else []
        self._plan = plan
        self._options = options
        self._on_progress = on_progress
        self._end_s = max((span.end_s for span in plan.phases), default=0.0)
        # A closed loop by number of requests ends with them.
        self._until_s = self._end_s + options.drain_s if plan.concurrency is None or plan.by_time else None
        self._pool = ConnectionPool(
            target,
            limit=options.in_flight_limit,
            connect_timeout_s=options.connect_timeout_s,
            idle_s=options.idle_connection_s,
        )
        writer = RequestWriter(target, options)
        run_id = options.run_id or secrets.token_hex(4)
        self._dispatcher = Dispatcher(plan, options, writer=writer, pool=self._pool, run_id=run_id)
        self._watch = None
        if options.watch_server:
            self._watch = ServerWatch(target, metrics_urls=options.metrics_urls, power=options.power)
        self._lag = LagMonitor()
        self._figures = RunningFigures(options.slos)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._start_s = 0.0
        self._progress_due_s = 0.0
        self._sweep_due_s = 0.0
        self._over: asyncio.Future[None]
        self._arrivals: DueTimer
        self._backlog: Backlog

    async def run(self, start_s: float | None) -> LoadResult:
        """Send everything, wait for the answers until the drain is over, read them, and put the result together."""
        cpu = CpuMeter()
        self._over = asyncio.get_running_loop().create_future()
        self._dispatcher.prepare()
        await self._pool.resolve()
        if self._watch is not None:
            await self._watch.start()
        with collector_paused():
            self._start_s = monotonic() + LEAD_S if start_s is None else start_s
            started_unix_s = time.time() + self._start_s - monotonic()
            try:
                load_cpu = CpuMeter()
                self._begin()
                await self._until_over()
                duration_s = monotonic() - self._start_s
                shares = load_cpu.thread_share(), load_cpu.machine_share()
            finally:
                self._stop_timers()
                flights, rows = self._dispatcher.cut_off()
                await self._pool.close()
                if self._watch is not None:
                    await self._watch.stop()
            self._backlog.read_rest(flights)
            self._report(self._start_s + duration_s, finished=True)
        rows += self._backlog.outcomes
        server = self._watch.result(self._start_s) if self._watch is not None else ServerSide()
        return self._result(rows, server, cpu, shares, started_unix_s, duration_s)

    def _begin(self) -> None:
        """Set the timers going."""
        self._arrivals = DueTimer(self._guarded(self._dispatcher.dispatch))
        self._backlog = Backlog(self._figures, start_s=self._start_s, streaming=self._options.streaming)
        self._lag.start()
        self._later("tick", 0.0, self._tick)
        if self._until_s is not None:
            self._later("cut_off", max(0.0, self._start_s + self._until_s - monotonic()), self._end)
        self._look_later()
        self._dispatcher.begin(
            start_s=self._start_s,
            until_s=self._until_s,
            backlog=self._backlog,
            wake=self._arrivals.set,
            on_over=self._end,
            on_used_up=self._used_up,
        )

    async def _until_over(self) -> None:
        """Wait for the end, or for a cancellation that is one."""
        try:
            await self._over
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._keep or task is None or self._start_s > monotonic():
                raise
            task.uncancel()
            self._ended = Ended.INTERRUPTED
            self._cut_short(monotonic() - self._start_s)

    def _result(
        self,
        rows: list[RequestOutcome],
        server: ServerSide,
        cpu: CpuMeter,
        shares: tuple[float, float],
        started_unix_s: float,
        duration_s: float,
    ) -> LoadResult:
        rows.sort(key=lambda row: (row.intended_s, row.index))
        assert len({row.index for row in rows}) == len(rows)
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
            phases=spans_of_run(self._plan, rows, duration_s),
            options=self._options,
            server=server,
            client=check,
            started_unix_s=started_unix_s,
            duration_s=duration_s,
            ended=self._ended,
        )

    # What happens meanwhile.

    def _end(self, error: Exception | None = None) -> None:
        if self._over.done():
            return
        if error is None:
            self._over.set_result(None)
        else:
            self._over.set_exception(error)

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

    def _look_later(self) -> None:
        """Set the timer for the next look at whether enough is known."""
        if self._looks_s:
            self._later("look", max(0.0, self._start_s + self._looks_s.pop(0) - monotonic()), self._look)

    def _look(self) -> None:
        """Ask on another thread: the loop has answers to stamp."""
        assert self._enough is not None
        rows, now_s = list(self._backlog.outcomes), monotonic() - self._start_s
        asked = asyncio.get_running_loop().run_in_executor(None, self._enough, rows, now_s)
        asked.add_done_callback(lambda answer: self._guarded(lambda: self._looked(answer))())

    def _looked(self, answer: asyncio.Future[bool]) -> None:
        if self._ended is not Ended.PLAN:
            return
        if self._over.done() or not answer.result():
            self._look_later()
            return
        self._ended = Ended.ENOUGH
        self._cut_short(monotonic() - self._start_s)

    def _used_up(self, end_s: float) -> None:
        """A closed loop has no request left for a user who is free: from here on the load is not what was asked for."""
        self._ended = Ended.USED_UP
        if end_s > self._plan.phases[-1].start_s:
            self._cut_short(end_s)

    def _cut_short(self, end_s: float) -> None:
        """End the plan, and its last phase, at this instant."""
        self._end_s = end_s
        self._until_s = end_s + self._options.drain_s
        self._plan = plan_until(self._plan, end_s)
        if "cut_off" in self._timers:
            self._timers["cut_off"].cancel()
            self._later("cut_off", max(0.0, self._start_s + self._until_s - monotonic()), self._end)
        self._dispatcher.shorten(self._plan, self._until_s)

    def _sweep(self, now_s: float) -> None:
        """End requests that took too long or have no more to come, and close connections that were idle too long."""
        self._pool.prune()
        for exchange in self._dispatcher.left_open(now_s):
            self._pool.finish(exchange, exchange.chunk_times_s[-1])
        limit_s = self._options.request_timeout_s
        for exchange in self._dispatcher.begun_before(now_s - limit_s):
            self._pool.fail(exchange, ErrorKind.TIMEOUT, f"no complete answer within {limit_s:g} s")

    def _report(self, now_s: float, *, finished: bool = False) -> None:
        elapsed_s = max(0.0, now_s - self._start_s)
        phase = self._phase_at(elapsed_s)
        if phase is not self._figures.phase:
            self._figures.start_phase(phase)
        if self._on_progress is None:
            return
        figures, sender = self._figures, self._dispatcher
        waiting = self._pool.waiting
        self._on_progress(
            Progress(
                phase=phase,
                elapsed_s=elapsed_s,
                total_s=self._end_s,
                offered=sender.offered,
                sent=sender.offered - waiting,
                done=sender.ended,
                in_flight=sender.active - waiting,
                waiting=waiting,
                shed=figures.shed,
                failed=figures.failed,
                ttft_p50_s=figures.ttft_s.percentile(50),
                ttft_p95_s=figures.ttft_s.percentile(95),
                itl_p50_s=figures.itl_s.percentile(50),
                itl_p95_s=figures.itl_s.percentile(95),
                goodput_fraction=figures.goodput_fraction,
                output_tokens_per_s=figures.tokens_per_s(now_s),
                draining=self._plan.by_time and elapsed_s > self._end_s,
                finished=finished,
                samples=figures.samples,
            )
        )

    def _phase_at(self, elapsed_s: float) -> Phase:
        if not self._plan.phases:
            return Phase.SUSTAINED
        if not self._plan.by_time:
            return self._dispatcher.phase
        spans = self._plan.phases
        return next((span.phase for span in spans if elapsed_s < span.end_s), spans[-1].phase)

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
                self._end(error)

        return guarded

    def _stop_timers(self) -> None:
        self._lag.stop()
        self._arrivals.close()
        for timer in self._timers.values():
            timer.cancel()
