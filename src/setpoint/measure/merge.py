"""What several client processes saw, put together as if one had: rows, the client's account, live figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from setpoint.measure.enough import plan_until
from setpoint.measure.event_loop import LagMonitor
from setpoint.measure.histogram import LogHistogram
from setpoint.measure.options import LoadOptions
from setpoint.measure.outcome import RequestOutcome, dropped
from setpoint.measure.result import Ended, LoadResult, spans_of_run
from setpoint.measure.running import LiveSamples, Progress
from setpoint.measure.self_check import ClientCheck, client_check
from setpoint.measure.server_side import ServerSide, join_requests

if TYPE_CHECKING:
    from setpoint.workload.plan import LoadPlan


def merge_results(
    parts: Sequence[LoadResult],
    plan: LoadPlan,
    options: LoadOptions,
    server: ServerSide,
    *,
    lost: Mapping[int, str],
    failures: tuple[str, ...],
    workers: int,
    started_unix_s: float,
    duration_s: float,
) -> LoadResult:
    """One result of the whole ``plan`` from those of its shards.

    options: those of the run (with its ``run_id``). server: what the server said, joined with the rows here. lost: for
    requests of workers that ended early, by index, why they have no row; they count as dropped. failures: the same in
    whole sentences, for the verdict. duration_s: used where no part has one.
    """
    rows = [row for part in parts for row in part.outcomes]
    for planned in plan.requests:
        if planned.index in lost:
            row = dropped(planned, f"{options.run_id}-{planned.index}", streaming=options.streaming)
            row.error = lost[planned.index]
            rows.append(row)
    rows.sort(key=lambda row: (row.intended_s, row.index))
    duration_s = max((part.duration_s for part in parts), default=duration_s)
    join_requests(rows, server)
    if parts and plan.phases and plan.by_time:  # Where all of them ended early, the last that did ends the phase.
        plan = plan_until(plan, max(part.phases[-1].end_s for part in parts))
    return LoadResult(
        outcomes=rows,
        phases=spans_of_run(plan, rows, duration_s),
        options=options,
        server=server,
        client=merge_checks([part.client for part in parts], rows, workers=workers, failures=failures),
        started_unix_s=started_unix_s,
        duration_s=duration_s,
        ended=_ended(parts),
    )


def _ended(parts: Sequence[LoadResult]) -> Ended:
    """What ended the whole run: whatever ended any of its parts early."""
    seen = {part.ended for part in parts}
    return next((ended for ended in (Ended.INTERRUPTED, Ended.USED_UP) if ended in seen), Ended.PLAN)


def merge_checks(
    parts: Sequence[ClientCheck], rows: Sequence[RequestOutcome], *, workers: int, failures: tuple[str, ...] = ()
) -> ClientCheck:
    """One account: lags from all rows and all loops, CPU seconds summed, the share of the busiest core.

    The peak of requests in flight is that of the rows: the processes' own peaks need not have come together.
    """
    lag = LagMonitor()
    for part in parts:
        if part.loop_lags is not None:
            lag.lag_s.add_histogram(part.loop_lags)
    return client_check(
        rows,
        lag,
        cpu_s=sum(part.cpu_s for part in parts),
        cpu_share=max((part.cpu_share for part in parts), default=0.0),
        machine_cpu_share=max((part.machine_cpu_share for part in parts), default=0.0),
        connections_opened=sum(part.connections_opened for part in parts),
        in_flight_peak=in_flight_peak(rows),
        held_back=sum(part.held_back for part in parts),
        workers=workers,
        failures=failures,
    )


def in_flight_peak(rows: Sequence[RequestOutcome]) -> int:
    """The most requests that were under way at one moment, opening of their connections included."""
    begins, ends = [], []
    for row in rows:
        begun_s = row.sent_s if row.connect_started_s is None else row.connect_started_s
        if begun_s is not None:
            begins.append(begun_s)
            ends.append(np.inf if row.ended_s is None else max(begun_s, row.ended_s))
    if not begins:
        return 0
    begun = np.sort(np.array(begins))
    # At each beginning: how many began up to it, less how many ended before.
    return int((np.arange(1, begun.size + 1) - np.searchsorted(np.sort(np.array(ends)), begun, side="left")).max())


def merge_progress(parts: Sequence[Progress], *, finished: bool) -> Progress:
    """One moment of the whole run from the latest of each process (at least one). Counts are summed.

    The phase is that of the process that is furthest; latencies and goodput are of the processes that are in it, from
    their histograms.
    """
    furthest = max(parts, key=lambda part: part.elapsed_s)
    samples = [part.samples for part in parts if part.phase is furthest.phase and part.samples is not None]
    pooled = pool_samples(samples)

    return replace(
        furthest,
        offered=sum(part.offered for part in parts),
        sent=sum(part.sent for part in parts),
        done=sum(part.done for part in parts),
        in_flight=sum(part.in_flight for part in parts),
        waiting=sum(part.waiting for part in parts),
        shed=sum(part.shed for part in parts),
        failed=sum(part.failed for part in parts),
        ttft_p50_s=pooled.ttft_s.percentile(50),
        ttft_p95_s=pooled.ttft_s.percentile(95),
        itl_p50_s=pooled.itl_s.percentile(50),
        itl_p95_s=pooled.itl_s.percentile(95),
        goodput_fraction=pooled.good / pooled.judged if pooled.judged else None,
        output_tokens_per_s=sum(part.output_tokens_per_s for part in parts if finished or not part.finished),
        finished=finished,
        samples=pooled,
    )


def pool_samples(parts: Sequence[LiveSamples]) -> LiveSamples:
    """The samples of all parts as one."""
    ttft_s, itl_s = LogHistogram(), LogHistogram()
    for part in parts:
        ttft_s.add_histogram(part.ttft_s)
        itl_s.add_histogram(part.itl_s)
    return LiveSamples(ttft_s, itl_s, sum(part.judged for part in parts), sum(part.good for part in parts))
