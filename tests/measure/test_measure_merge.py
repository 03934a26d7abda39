"""What several processes saw as one: rows, account, live figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.measure.event_loop import LagMonitor
from setpoint.measure.histogram import LogHistogram
from setpoint.measure.merge import in_flight_peak, merge_checks, merge_progress, merge_results
from setpoint.measure.options import LoadOptions
from setpoint.measure.outcome import RequestOutcome
from setpoint.measure.result import Ended, LoadResult, validity
from setpoint.measure.running import LiveSamples, Progress
from setpoint.measure.self_check import ClientCheck, client_check
from setpoint.measure.server_side import ServerSide
from setpoint.record import Phase, RequestClass
from setpoint.requirement import Slos
from setpoint.workload.plan import LoadPlan, PhaseSpan, PlannedRequest

Durations = st.lists(st.floats(1e-4, 100.0), max_size=50)


def row(index: int, begun_s: float, ended_s: float | None, lag_s: float = 0.001) -> RequestOutcome:
    return RequestOutcome(
        index=index,
        request_id=f"r-{index}",
        phase=Phase.SUSTAINED,
        intended_s=begun_s - lag_s,
        dispatched_s=begun_s,
        sent_s=begun_s,
        ended_s=ended_s,
        request_class=RequestClass.OK if ended_s is not None else RequestClass.UNFINISHED,
        status=200,
        streaming=True,
        prompt_tokens=1,
        output_tokens=4,
        attempts=1,
    )


def check(rows: list[RequestOutcome], lags_s: list[float], *, cpu_s: float = 1.0, share: float = 0.2) -> ClientCheck:
    lag = LagMonitor()
    lag.lag_s.add_many(np.array(lags_s))
    return client_check(
        rows,
        lag,
        cpu_s=cpu_s,
        cpu_share=share,
        machine_cpu_share=share,
        connections_opened=3,
        in_flight_peak=2,
        held_back=1,
    )


@given(Durations, Durations)
def test_pooled_histograms_are_the_histogram_of_all(first: list[float], second: list[float]) -> None:
    one, other, both = LogHistogram(), LogHistogram(), LogHistogram()
    one.add_many(np.array(first))
    other.add_many(np.array(second))
    both.add_many(np.array(first + second))
    one.add_histogram(other)
    assert (one.n, one.max_s) == (both.n, both.max_s)
    assert [one.percentile(p) for p in (1, 50, 99)] == [both.percentile(p) for p in (1, 50, 99)]


@given(st.lists(st.tuples(st.integers(0, 30), st.one_of(st.none(), st.integers(0, 10))), max_size=40))
def test_peak_in_flight_is_that_of_a_count_at_every_moment(spans: list[tuple[int, int | None]]) -> None:
    rows = [row(n, float(begin), None if lasts is None else float(begin + lasts)) for n, (begin, lasts) in enumerate(spans)]
    moments = range(45)
    # A request that ends at the moment another begins still counts with it.
    counts = [sum(begin <= now and (lasts is None or now <= begin + lasts) for begin, lasts in spans) for now in moments]
    assert in_flight_peak(rows) == max(counts)


def test_account_pools_lags_sums_costs_and_keeps_the_worst_share() -> None:
    first, second = [row(0, 1.0, 2.0, 0.001)], [row(1, 1.5, 3.0, 0.003)]
    merged = merge_checks(
        [check(first, [0.001] * 99, share=0.2), check(second, [0.05] * 99, cpu_s=0.5, share=0.6)],
        first + second,
        workers=2,
    )
    assert merged.workers == 2
    assert merged.cpu_s == 1.5
    assert (merged.cpu_share, merged.machine_cpu_share) == (0.6, 0.6)
    assert merged.tokens_per_cpu_s == pytest.approx(8 / 1.5)
    assert (merged.connections_opened, merged.held_back, merged.in_flight_peak) == (6, 2, 2)
    assert merged.send_lag_max_s == pytest.approx(0.003)
    assert merged.loop_lag_p50_s == pytest.approx(0.001, rel=0.02)
    assert merged.loop_lag_p99_s == pytest.approx(0.05, rel=0.02)


def progress(phase: Phase, elapsed_s: float, ttft_s: list[float], *, good: int, finished: bool = False) -> Progress:
    ttft, itl = LogHistogram(), LogHistogram()
    ttft.add_many(np.array(ttft_s))
    return Progress(
        phase=phase,
        elapsed_s=elapsed_s,
        total_s=10.0,
        offered=10,
        sent=9,
        done=5,
        in_flight=4,
        waiting=1,
        shed=2,
        failed=3,
        ttft_p50_s=ttft.percentile(50),
        ttft_p95_s=ttft.percentile(95),
        itl_p50_s=None,
        itl_p95_s=None,
        goodput_fraction=good / len(ttft_s),
        output_tokens_per_s=100.0,
        finished=finished,
        samples=LiveSamples(ttft, itl, len(ttft_s), good),
    )


def test_live_figures_are_of_all_processes_in_the_phase() -> None:
    fast = progress(Phase.SUSTAINED, 3.0, [0.1] * 60, good=60)
    slow = progress(Phase.SUSTAINED, 3.1, [1.0] * 40, good=10)
    merged = merge_progress([fast, slow], finished=False)
    assert (merged.offered, merged.sent, merged.done, merged.in_flight) == (20, 18, 10, 8)
    assert (merged.waiting, merged.shed, merged.failed) == (2, 4, 6)
    assert merged.elapsed_s == 3.1
    assert merged.ttft_p50_s == pytest.approx(0.1, rel=0.02)
    assert merged.ttft_p95_s == pytest.approx(1.0, rel=0.02)
    assert merged.itl_p50_s is None
    assert merged.goodput_fraction == 0.7
    assert merged.output_tokens_per_s == 200.0


def test_live_figures_of_an_earlier_phase_and_of_who_is_done_are_left_out() -> None:
    behind = progress(Phase.WARMUP, 2.9, [9.0] * 50, good=0)
    ahead = progress(Phase.SUSTAINED, 3.1, [0.1] * 10, good=10)
    merged = merge_progress([behind, replace(ahead, finished=True)], finished=False)
    assert merged.phase is Phase.SUSTAINED
    assert merged.ttft_p95_s == pytest.approx(0.1, rel=0.02)
    assert merged.output_tokens_per_s == 100.0
    assert not merged.finished
    assert merge_progress([replace(behind, finished=True)], finished=True).output_tokens_per_s == 100.0


def test_rows_of_a_process_that_ended_early_are_dropped_with_the_reason_and_the_run_is_invalid() -> None:
    requests = [PlannedRequest(index, index * 0.5, Phase.SUSTAINED, "a", 1, 4) for index in range(4)]
    plan = LoadPlan(0, [PhaseSpan(Phase.SUSTAINED, 0.0, 2.0)], requests, True)
    options = LoadOptions(run_id="x")
    rows = [row(index, index * 0.5 + 0.001, index * 0.5 + 0.2) for index in (0, 2)]
    part = LoadResult(
        outcomes=rows,
        phases=plan.phases,
        options=options,
        server=ServerSide(),
        client=check(rows, [0.001]),
        started_unix_s=0.0,
        duration_s=1.7,
    )
    merged = merge_results(
        [part],
        plan,
        options,
        ServerSide(),
        lost={1: "it died", 3: "it died"},
        failures=("The client process 2 of 2 ended early (SIGKILL) with its 2 requests",),
        workers=2,
        started_unix_s=5.0,
        duration_s=9.0,
    )
    assert [one.index for one in merged.outcomes] == [0, 1, 2, 3]
    assert [one.error for one in merged.outcomes] == ["", "it died", "", "it died"]
    assert merged.outcomes[1].request_id == "x-1"
    assert merged.counts()[RequestClass.DROPPED] == 2
    assert (merged.started_unix_s, merged.duration_s) == (5.0, 1.7)
    judged = validity(merged, Slos())
    assert not judged.valid
    assert judged.reasons[0].startswith("The client process 2 of 2 ended early (SIGKILL) with its 2 requests")
    nobody = merge_results(
        [], plan, options, ServerSide(), lost=dict.fromkeys(range(4), "gone"), failures=("all",), workers=2,
        started_unix_s=5.0, duration_s=9.0,
    )  # fmt: skip
    assert nobody.duration_s == 9.0
    assert nobody.counts()[RequestClass.DROPPED] == 4
    assert not validity(nobody, Slos()).valid


def test_a_phase_that_every_process_ended_early_ends_with_the_last_of_them() -> None:
    requests = [PlannedRequest(index, 0.0, Phase.SUSTAINED, "a", 1, 4) for index in range(4)]
    plan = LoadPlan(0, [PhaseSpan(Phase.SUSTAINED, 0.0, 2.0)], requests, True, concurrency=2)

    def part(index: int, end_s: float, ended: Ended) -> LoadResult:
        rows = [row(index, 0.1, end_s)]
        return LoadResult(
            outcomes=rows,
            phases=[PhaseSpan(Phase.SUSTAINED, 0.0, end_s)],
            options=LoadOptions(),
            server=ServerSide(),
            client=check(rows, [0.001]),
            started_unix_s=0.0,
            duration_s=end_s,
            ended=ended,
        )

    def merged(*parts: LoadResult) -> LoadResult:
        return merge_results(
            parts, plan, LoadOptions(), ServerSide(), lost={}, failures=(), workers=2, started_unix_s=0.0, duration_s=2.0
        )

    both = merged(part(0, 1.2, Ended.USED_UP), part(1, 1.4, Ended.USED_UP))
    assert (both.ended, [span.end_s for span in both.phases]) == (Ended.USED_UP, [1.4])
    one = merged(part(0, 1.2, Ended.USED_UP), part(1, 2.0, Ended.PLAN))
    assert (one.ended, [span.end_s for span in one.phases]) == (Ended.USED_UP, [2.0])
    stopped = merged(part(0, 0.7, Ended.INTERRUPTED), part(1, 0.6, Ended.USED_UP))
    assert (stopped.ended, [span.end_s for span in stopped.phases]) == (Ended.INTERRUPTED, [0.7])
