"""Real runs over several client processes against the mock: one plan, one result, whatever the number."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from time import monotonic

import numpy as np
import psutil
import pytest

from setpoint.measure.capacity import Capacity
from setpoint.measure.event_loop import run
from setpoint.measure.fidelity import arrival_fidelity
from setpoint.measure.mock import MockOptions, MockProcess
from setpoint.measure.options import Endpoint, LoadOptions
from setpoint.measure.result import LoadResult, validity
from setpoint.measure.running import Progress
from setpoint.measure.target import Target
from setpoint.measure.worker import WorkerError
from setpoint.measure.workers import choose_workers, expected_load, intended_of, run_load_over_workers, worker_choice
from setpoint.record import Phase, RequestClass
from setpoint.requirement import ArrivalProcess, Slos
from setpoint.workload.arrivals import arrival_offsets_s
from setpoint.workload.plan import LoadPlan, PhaseSpan, PlannedRequest

TOKENS = 6


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with MockProcess(MockOptions(ttft_s=0.02, itl_s=0.005)) as process:
        yield process


def plan_of(times_s: list[float], end_s: float, *, concurrency: int | None = None, tokens: int = TOKENS) -> LoadPlan:
    requests = [PlannedRequest(n, at_s, Phase.SUSTAINED, "a b c", 3, tokens) for n, at_s in enumerate(times_s)]
    return LoadPlan(0, [PhaseSpan(Phase.SUSTAINED, 0.0, end_s)], requests, True, concurrency=concurrency)


def run_over(mock: MockProcess, plan: LoadPlan, workers: int, **options: object) -> LoadResult:
    settings = LoadOptions(**({"drain_s": 10.0, "run_id": "w"} | options))  # type: ignore[arg-type]
    return run(run_load_over_workers(Target(mock.url, "mock-model"), plan, settings, workers=workers))


def worker_processes() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "setpoint.measure.worker_process" in child.cmdline()]


@pytest.mark.parametrize(
    ("process", "cv", "workers"),
    [(ArrivalProcess.POISSON, 1.0, 1), (ArrivalProcess.POISSON, 1.0, 2), (ArrivalProcess.GAMMA, 2.0, 3)],
)
def test_any_number_of_processes_sends_the_plan_with_its_dispersion(
    mock: MockProcess, process: ArrivalProcess, cv: float, workers: int
) -> None:
    rng = np.random.default_rng(20)
    plan = plan_of(arrival_offsets_s(process, 80.0, 2.5, rng, cv=cv).tolist(), 2.5)
    mock.reset_log()
    result = run_over(mock, plan, workers)
    assert result.client.workers == workers
    assert [row.index for row in result.outcomes] == list(range(len(plan.requests)))
    assert [row.request_id for row in result.outcomes] == [f"w-{index}" for index in range(len(plan.requests))]
    assert result.counts()[RequestClass.OK] == len(plan.requests)
    assert all(row.output_tokens == row.token_times_s.size == TOKENS for row in result.outcomes)
    received = {request_id: request.received_s for request_id, request in mock.log().by_id().items()}
    assert sorted(received) == sorted(row.request_id for row in result.outcomes)
    # What the server saw, on its own clock, has the dispersion of the plan: a stall of this machine moves it a little.
    intended_s = np.array([row.intended_s for row in result.outcomes])
    arrived_s = np.array([received[row.request_id] for row in result.outcomes])
    arrived_s -= np.median(arrived_s - intended_s)
    seen = arrival_fidelity(intended_s, arrived_s, -0.05, 2.55)
    assert abs(seen.realised.n - seen.planned.n) <= 3
    assert seen.planned.dispersion is not None
    assert seen.realised.dispersion == pytest.approx(seen.planned.dispersion, rel=0.2, abs=0.4)


def test_limits_hold_for_all_processes_together(mock: MockProcess) -> None:
    plan = plan_of([0.0] * 40, 1.0)
    result = run_over(mock, plan, 2, max_in_flight=5)
    assert result.counts()[RequestClass.OK] == 40
    assert result.client.in_flight_peak <= 5
    assert result.client.held_back == 35
    assert result.options.max_in_flight == 5
    assert validity(result, Slos()).reasons == []


def test_slots_of_a_closed_loop_are_shared_out(mock: MockProcess) -> None:
    plan = plan_of([0.0] * 4000, 0.6, concurrency=3)
    result = run_over(mock, plan, 2)
    assert result.client.in_flight_peak == 3
    # Some 0.05 s a request: about 12 for each slot, and no slot was idle long.
    assert 12 <= len(result.outcomes) <= 60
    assert result.counts()[RequestClass.OK] == len(result.outcomes)
    assert len({row.index for row in result.outcomes}) == len(result.outcomes)


def test_conversations_go_on_in_one_process(mock: MockProcess) -> None:
    requests = []
    for talk in range(4):
        first = PlannedRequest(2 * talk, 0.05 * talk, Phase.SUSTAINED, "a b", 2, TOKENS, session=f"s{talk}")
        requests += [first, replace(first, index=2 * talk + 1, turn=1, follows=2 * talk, think_s=0.1)]
    plan = LoadPlan(0, [PhaseSpan(Phase.SUSTAINED, 0.0, 5.0)], requests, True)
    result = run_over(mock, plan, 2, endpoint=Endpoint.CHAT)
    assert result.counts()[RequestClass.OK] == 8
    turns = {(row.session, row.turn): row for row in result.outcomes}
    for talk in range(4):
        first_turn, second_turn = turns[f"s{talk}", 0], turns[f"s{talk}", 1]
        assert first_turn.last_token_s is not None
        assert second_turn.intended_s == pytest.approx(first_turn.last_token_s + 0.1)
        assert second_turn.prompt_tokens > first_turn.prompt_tokens


def test_live_figures_come_together_while_it_runs(mock: MockProcess) -> None:
    seen: list[tuple[float, Progress]] = []
    plan = plan_of(np.arange(0.0, 1.2, 0.02).tolist(), 1.2)
    target, options = Target(mock.url, "mock-model"), LoadOptions(drain_s=10.0)
    run(run_load_over_workers(target, plan, options, lambda now: seen.append((monotonic(), now)), workers=2))
    during = [now for _, now in seen[:-1]]
    last = seen[-1][1]
    assert last.finished
    assert not any(now.finished for now in during)
    assert (last.offered, last.sent, last.done) == (60, 60, 60)
    assert any(now.ttft_p50_s is not None and 0 < now.done < 60 for now in during)
    # At most four a second, on average: one that came late does not hold the next back.
    assert len(during) <= 4.0 * (seen[-1][0] - seen[0][0]) + 2.0


def test_one_process_that_is_killed_costs_its_own_rows_and_the_run(mock: MockProcess) -> None:
    plan = plan_of(np.arange(0.0, 1.5, 0.02).tolist(), 1.5)

    def kill_one(progress: Progress) -> None:
        if progress.done and len(alive := worker_processes()) == 2:
            os.kill(alive[0].pid, signal.SIGKILL)

    target, options = Target(mock.url, "mock-model"), LoadOptions(drain_s=10.0)
    result = run(run_load_over_workers(target, plan, options, kill_one, workers=2))
    counts = result.counts()
    assert (counts[RequestClass.DROPPED], counts[RequestClass.OK]) in ((37, 38), (38, 37))
    errors = {row.error for row in result.outcomes if row.request_class is RequestClass.DROPPED}
    assert len(errors) == 1
    assert "ended early: SIGKILL" in errors.pop()
    judged = validity(result, Slos())
    assert not judged.valid
    assert "ended early (SIGKILL, which is what a machine out of memory does)" in judged.reasons[0]
    assert worker_processes() == []


def test_cancelling_ends_every_process(mock: MockProcess) -> None:
    plan = plan_of(np.arange(0.0, 60.0, 0.02).tolist(), 60.0)

    async def main() -> None:
        begun = asyncio.Event()
        target, options = Target(mock.url, "mock-model"), LoadOptions(drain_s=10.0)
        load = run_load_over_workers(target, plan, options, lambda _: begun.set(), workers=2)
        working = asyncio.ensure_future(load)
        await begun.wait()
        assert len(worker_processes()) == 2
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    run(main())
    assert worker_processes() == []


def test_a_plan_that_cannot_be_sent_is_refused_as_by_one_process(mock: MockProcess) -> None:
    requests = [PlannedRequest(n, 0.0, Phase.SUSTAINED, (1, 2, 3), 3, TOKENS) for n in range(4)]
    plan = LoadPlan(0, [PhaseSpan(Phase.SUSTAINED, 0.0, 1.0)], requests, True)
    with pytest.raises(ValueError, match="chat") as alone:
        run_over(mock, plan, 1, endpoint=Endpoint.CHAT)
    with pytest.raises(ValueError, match="chat") as together:
        run_over(mock, plan, 2, endpoint=Endpoint.CHAT)
    assert str(alone.value) == str(together.value)
    with pytest.raises(ValueError, match=r"^workers: found 0"):
        run_over(mock, plan, 0)


@pytest.mark.parametrize(("program", "why"), [("/bin/false", "exit code 1"), ("/nowhere/python", "No such file")])
def test_a_process_that_does_not_come_up_is_said_before_anything_is_sent(
    mock: MockProcess, monkeypatch: pytest.MonkeyPatch, program: str, why: str
) -> None:
    mock.reset_log()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", program)
        with pytest.raises(WorkerError, match=f"client process [12] of 2 did not start: .*{why}"):
            run_over(mock, plan_of([0.0, 0.1], 1.0), 2)
    assert mock.log().requests == []


def test_what_a_lost_process_would_have_offered() -> None:
    turns = [
        PlannedRequest(0, 0.0, Phase.SUSTAINED, "a", 1, 4, session="s"),
        PlannedRequest(1, 0.5, Phase.SUSTAINED, "a", 1, 4, session="s", turn=1, follows=0),
        PlannedRequest(2, 9.0, Phase.SUSTAINED, "a", 1, 4, session="s", turn=2, follows=1),
    ]
    plan = LoadPlan(0, [PhaseSpan(Phase.SUSTAINED, 0.0, 2.0)], turns, True)
    assert [request.index for request in intended_of(plan, offered=0)] == [0, 1]
    closed = plan_of([0.0] * 20, 2.0, concurrency=3)
    assert len(intended_of(closed, offered=0)) == 3
    assert len(intended_of(closed, offered=7)) == 7


CAPACITY = Capacity(tokens_per_s=10_000.0, requests_per_s=1_000.0, measured_unix_s=1.0)


def steady(rate_rps: float, tokens: int) -> LoadPlan:
    return plan_of(np.arange(0.0, 10.0, 1.0 / rate_rps).tolist(), 10.0, tokens=tokens)


def test_as_many_processes_as_the_load_takes_and_no_more_than_cores() -> None:
    small = worker_choice(steady(10.0, 100), 8, CAPACITY)
    assert small.workers == 1
    assert "1,000 tokens/s and 10 requests/s, 11% of one process's capacity" in small.why
    assert small.why.endswith("up to 70% one is enough")
    large = worker_choice(steady(100.0, 150), 8, CAPACITY)
    assert large.workers == 3
    assert "this machine's client is good to 10,000 tokens/s and 1,000 requests/s per worker" in large.why
    assert choose_workers(steady(100.0, 150), 2, CAPACITY) == 2
    assert "but there are 2 cores" in worker_choice(steady(100.0, 150), 2, CAPACITY).why
    one_talk = plan_of([0.0], 1.0, tokens=1_000_000)
    assert "there is work for 1 only" in worker_choice(one_talk, 8, CAPACITY).why


def test_expected_load_is_that_of_the_busiest_seconds() -> None:
    burst = plan_of([*np.arange(0.0, 10.0, 1.0), *np.arange(10.0, 12.0, 0.01)], 30.0, tokens=50)
    tokens_per_s, requests_per_s = expected_load(burst)
    assert requests_per_s == pytest.approx(100, abs=1)
    assert tokens_per_s == pytest.approx(50 * 203 / 5.0, rel=0.02)
    assert expected_load(plan_of([], 1.0)) == (0.0, 0.0)
    assert expected_load(plan_of([0.0] * 10, 1.0, concurrency=50, tokens=20)) == (5000.0, 250.0)
