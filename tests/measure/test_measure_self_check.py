"""The verdict on the client itself, and its account for the report."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from measure_helpers import even_plan, run_against_mock

from setpoint.measure.capacity import Capacity
from setpoint.measure.client_account import client_account
from setpoint.measure.event_loop import LagMonitor
from setpoint.measure.options import LoadOptions
from setpoint.measure.outcome import RequestOutcome
from setpoint.measure.result import LoadResult, validity
from setpoint.measure.self_check import ClientCheck, client_check, client_errors, fidelity_by_phase, judge_client
from setpoint.measure.server_side import ServerSide
from setpoint.record import CONVERSATION_OVER, Phase, RequestClass, Validity
from setpoint.requirement import LatencyMetric, LatencySlo, Slos
from setpoint.workload.plan import PhaseSpan

ONE_PHASE = [PhaseSpan(Phase.SUSTAINED, 0.0, 100.0)]


def row(index: int, **more: object) -> RequestOutcome:
    at_s = 0.1 * index
    made = RequestOutcome(
        index=index,
        request_id=f"r-{index}",
        phase=Phase.SUSTAINED,
        intended_s=at_s,
        dispatched_s=at_s,
        sent_s=at_s,
        ended_s=at_s + 0.9,
        request_class=RequestClass.OK,
        status=200,
        streaming=True,
        prompt_tokens=3,
        output_tokens=4,
        token_times_s=at_s + np.array([0.4, 0.45, 0.5, 0.9]),
        completed=True,
        attempts=1,
    )
    for name, value in more.items():
        setattr(made, name, value)
    return made


def rows_of(count: int, *, lag_s: float = 0.0, wait_s: float = 0.0) -> list[RequestOutcome]:
    made = [row(index) for index in range(count)]
    for one in made:
        one.dispatched_s = one.intended_s + lag_s
        one.sent_s = one.dispatched_s + wait_s
    return made


def check(rows: list[RequestOutcome], *, loop_s: float = 0.0, share: float = 0.1) -> ClientCheck:
    lag = LagMonitor()
    lag.lag_s.add_many(np.full(200, loop_s))
    return client_check(
        rows,
        lag,
        cpu_s=0.5,
        cpu_share=share,
        machine_cpu_share=0.5,
        connections_opened=1,
        in_flight_peak=1,
        held_back=0,
    )


def judge(rows: list[RequestOutcome], slos: Slos | None = None, *, loop_s: float = 0.0, limited: bool = False) -> Validity:
    return judge_client(check(rows, loop_s=loop_s), rows, slos or Slos(), limited=limited)


def limit(metric: LatencyMetric, limit_s: float) -> Slos:
    return Slos(latency=(LatencySlo(metric=metric, percentile=95, limit_s=limit_s),))


TTFT_200MS = limit(LatencyMetric.TTFT, 0.2)


def test_errors_of_sends_and_stamps_add_up_against_a_tenth_of_the_tightest_limit() -> None:
    rows = rows_of(100, lag_s=0.012)
    assert judge(rows, TTFT_200MS, loop_s=0.007).valid
    (reason,) = judge(rows, TTFT_200MS, loop_s=0.0095).reasons
    assert reason == (
        "The client's own error in TTFT is 21.5 ms (P99: lag of sends 12.0 ms + lag of its event loop 9.5 ms); 20.0 ms "
        "would be let pass (10% of the TTFT limit of 200 ms). Give the client a core of its own, spread it over more "
        "processes (--workers), or lower the rate."
    )


def test_the_tightest_of_two_limits_counts() -> None:
    slos = Slos(
        latency=(
            LatencySlo(metric=LatencyMetric.TTFT, percentile=95, limit_s=2.0),
            LatencySlo(metric=LatencyMetric.E2E, percentile=95, limit_s=0.3),
        )
    )
    (reason,) = judge(rows_of(100, lag_s=0.035), slos).reasons
    assert "error in E2E is 35.0 ms" in reason


def test_a_late_event_loop_spoils_gaps_first() -> None:
    slos = limit(LatencyMetric.ITL, 0.1)
    assert judge(rows_of(100), slos, loop_s=0.009).valid
    (reason,) = judge(rows_of(100), slos, loop_s=0.012).reasons
    assert "error in ITL is 1" in reason
    assert "10% of the ITL limit of 100 ms" in reason


def test_below_the_floor_a_tight_limit_gets_a_warning_not_a_verdict() -> None:
    slos = limit(LatencyMetric.ITL, 0.02)
    rows = rows_of(100)
    assert judge(rows, slos, loop_s=0.004).valid
    account = client_account(result_of(rows, check(rows, loop_s=0.004)), slos=slos)
    (warning,) = [one for one in account["warnings"] if " ITL " in one]
    assert "20% of the limit of 20.0 ms" in warning
    (reason,) = judge(rows, slos, loop_s=0.006).reasons
    assert "5.0 ms would be let pass (more than 10% of the ITL limit of 20 ms)" in reason


def test_lag_of_a_short_burst_does_not_hide_in_a_long_run() -> None:
    rows = rows_of(5000)
    for one in rows[-30:]:
        one.phase, one.dispatched_s = Phase.BURST, one.intended_s + 0.2
    account = check(rows)
    assert account.send_lag_p99_s == 0.0
    assert "lag of sends 200.0 ms" in judge(rows, TTFT_200MS).reasons[0]


def test_lag_of_the_warm_up_is_nobodys_concern() -> None:
    rows = rows_of(100)
    for one in rows[:50]:
        one.phase, one.dispatched_s = Phase.WARMUP, one.intended_s + 0.2
    assert judge(rows, TTFT_200MS).valid


def test_a_limit_that_the_user_asked_for_is_no_error_but_the_clients_own_is() -> None:
    rows = rows_of(100, wait_s=0.3)
    assert judge(rows, TTFT_200MS, limited=True).valid
    (reason,) = judge(rows, TTFT_200MS).reasons
    assert "wait for a free connection 300.0 ms" in reason
    assert reason.endswith("give the limit you want to measure with (--max-in-flight), or lower the rate.")


def test_opening_a_connection_is_not_waiting_for_one() -> None:
    rows = rows_of(100, wait_s=0.3)
    for one in rows:
        one.connect_started_s, one.connected_s = one.dispatched_s, one.sent_s
    account = check(rows)
    assert account.pool_wait_p99_s == 0.0
    assert account.hold_p99_s == pytest.approx(0.3)
    assert account.connect_p99_s == pytest.approx(0.3)
    assert judge(rows, TTFT_200MS).valid


def test_without_a_limit_half_a_second_stands_for_one() -> None:
    assert judge(rows_of(100, lag_s=0.045)).valid
    (reason,) = judge(rows_of(100, lag_s=0.055)).reasons
    assert "10% of the TTFT limit of 500 ms that is usual, for none is stated" in reason


def test_turns_of_a_broken_conversation_are_not_the_clients_fault() -> None:
    lost = [row(index, request_class=RequestClass.DROPPED, error=CONVERSATION_OVER, dispatched_s=None) for index in range(30)]
    rows = rows_of(100) + lost
    assert judge(rows).valid
    assert fidelity_by_phase(rows, ONE_PHASE)[0][1].unsent == 0
    for one in lost:
        one.error = "the client did not send it before the end of the run"
    assert judge(rows).reasons == ["The client did not send 30 of 130 requests before the end of the run."]


def test_a_distorted_load_spoils_the_run() -> None:
    rows = rows_of(200)
    for one in rows:
        one.dispatched_s = one.sent_s = np.ceil(one.intended_s / 2.0) * 2.0
    verdict = judge_client(check(rows), rows, limit(LatencyMetric.E2E, 100.0), phases=[PhaseSpan(Phase.SUSTAINED, 0.0, 20.0)])
    assert verdict.reasons
    assert all(reason.startswith("In the sustained phase ") for reason in verdict.reasons)
    assert all(reason.endswith(": the client distorted the load.") for reason in verdict.reasons)


def test_a_full_core_spoils_the_run() -> None:
    rows = rows_of(10)
    assert "97% of its core" in judge_client(check(rows, share=0.97), rows, Slos()).reasons[0]


def test_workers_that_ended_early_are_named_once() -> None:
    rows = rows_of(10) + [row(10 + n, request_class=RequestClass.DROPPED, dispatched_s=None) for n in range(10)]
    broken = replace(check(rows), failures=("The client process 2 of 2 ended early (SIGKILL) with its 10 requests",))
    (reason,) = judge_client(broken, rows, Slos()).reasons
    assert reason.endswith("with its 10 requests; they count as dropped.")


def result_of(rows: list[RequestOutcome], client: ClientCheck, options: LoadOptions | None = None) -> LoadResult:
    return LoadResult(
        outcomes=rows,
        phases=[PhaseSpan(Phase.SUSTAINED, 0.0, 0.1 * len(rows))],
        options=options or LoadOptions(),
        server=ServerSide(),
        client=client,
        started_unix_s=0.0,
        duration_s=10.0,
    )


def test_account_compares_the_busiest_second_with_the_capacity() -> None:
    rows = rows_of(100)
    small = Capacity(tokens_per_s=20.0, requests_per_s=1000.0, measured_unix_s=1.0)
    account = client_account(result_of(rows, check(rows)), capacity=small)
    assert account["load_per_worker"] == {"requests_per_s": 10.0, "output_tokens_per_s": 40.0}
    assert account["capacity"]["tokens_per_s"] == 20.0
    assert any("40 tokens/s and 10 requests/s per worker, 2.0 times its capacity" in one for one in account["warnings"])
    enough = replace(small, tokens_per_s=1000.0)
    assert client_account(result_of(rows, check(rows)), capacity=enough)["warnings"] == []


def test_account_warns_of_what_a_limit_in_flight_did_to_the_arrivals() -> None:
    rows = rows_of(100)
    for one in rows:
        one.sent_s = np.ceil(one.intended_s / 2.0) * 2.0
    held = replace(check(rows), held_back=90, machine_cpu_share=0.99, cpu_share=0.8)
    account = client_account(result_of(rows, held, LoadOptions(max_in_flight=4)))
    (arrivals,) = account["arrivals"]
    assert arrivals["faithful"]
    assert not arrivals["on_the_wire"]["faithful"]
    text = " ".join(account["warnings"])
    assert "on the wire, because at most 4 may be in flight." in text
    assert "90 of 100 requests waited in the client for its limit" in text
    assert "99% busy" in text
    assert "little headroom" in text


def test_account_of_a_run_without_answers_is_still_an_account() -> None:
    rows = [row(n, token_times_s=np.empty(0), status=None, request_class=RequestClass.FAILED) for n in range(3)]
    account = client_account(result_of(rows, check(rows)))
    assert account["load_per_worker"]["output_tokens_per_s"] == 0.0
    empty = client_account(result_of([], check([])))
    assert empty["send_lag_s"] == {"p50": None, "p99": None, "max": None}
    json.dumps([account, empty], allow_nan=False)


def test_account_and_verdict_of_a_real_run() -> None:
    result, _ = run_against_mock(even_plan(40, gap_s=0.02))
    account = json.loads(json.dumps(client_account(result, slos=TTFT_200MS), allow_nan=False))
    assert account["workers"] == 1
    assert account["cpu"]["seconds"] > 0
    assert [error["of"] for error in account["errors"]] == ["ttft", "itl"]
    assert [error["limit_stated"] for error in account["errors"]] == [True, False]
    assert account["arrivals"][0]["planned"]["n"] == 40
    assert account["arrivals"][0]["realised"]["n"] >= 38
    assert client_errors(result.client, result.outcomes, Slos())[0].error_s >= 0
    assert validity(result, limit(LatencyMetric.E2E, 60.0)).reasons == []
