"""A load that ends before its plan: nothing more is sent, the last phase is cut there, nobody counts as dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from setpoint.measure.client import run_load
from setpoint.measure.enough import plan_until
from setpoint.measure.event_loop import run
from setpoint.measure.mock import MockOptions, MockProcess
from setpoint.measure.options import LoadOptions
from setpoint.measure.outcome import RequestOutcome
from setpoint.measure.result import Ended, LoadResult, validity
from setpoint.measure.running import Progress
from setpoint.measure.target import Target
from setpoint.measure.workers import run_load_over_workers
from setpoint.record import Phase, RequestClass
from setpoint.requirement import Slos
from setpoint.workload.plan import LoadPlan, PhaseSpan, PlannedRequest


@dataclass
class At:
    """Enough at the look with this number."""

    number: int
    looks_s: Sequence[float] = (0.3, 0.6, 0.9)
    asked: list[int] = field(default_factory=list)

    def __call__(self, rows: Sequence[RequestOutcome], now_s: float) -> bool:
        self.asked.append(len(rows))
        return len(self.asked) == self.number


def plan(end_s: float = 20.0, rate_rps: float = 50.0, concurrency: int | None = None) -> LoadPlan:
    times = [0.0 if concurrency else at / rate_rps for at in range(int(end_s * rate_rps))]
    requests = [PlannedRequest(at, time_s, Phase.SUSTAINED, "one two", 2, 3) for at, time_s in enumerate(times)]
    return LoadPlan(0, [PhaseSpan(Phase.SUSTAINED, 0.0, end_s)], requests, True, concurrency=concurrency)


@pytest.mark.parametrize("concurrency", [None, 3])
def test_the_load_ends_at_the_look_that_says_so(concurrency: int | None) -> None:
    enough = At(2)
    with MockProcess(MockOptions(ttft_s=0.02, itl_s=0.005)) as mock:
        target = Target(mock.url, model="m")
        result = run(run_load(target, plan(concurrency=concurrency), LoadOptions(drain_s=5.0), enough=enough))
    assert len(enough.asked) == 2
    assert 0 < enough.asked[0] < enough.asked[1]
    (span,) = result.phases
    assert 0.59 <= span.end_s < 5.0
    assert result.duration_s < 10.0
    assert result.ended is Ended.ENOUGH
    assert {row.request_class for row in result.outcomes} == {RequestClass.OK}
    assert all(row.intended_s < span.end_s for row in result.outcomes)
    if concurrency is None:
        assert len(result.outcomes) == sum(request.intended_s < span.end_s for request in plan().requests)


def test_without_enough_the_plan_is_carried_out() -> None:
    with MockProcess(MockOptions(ttft_s=0.02, itl_s=0.005)) as mock:
        short = plan(end_s=1.0)
        result = run(run_load(Target(mock.url, model="m"), short, LoadOptions(drain_s=5.0), enough=At(9)))
    assert (result.phases, result.ended) == (short.phases, Ended.PLAN)
    assert len(result.outcomes) == len(short.requests)


def test_turns_that_would_come_after_the_look_are_not_sent() -> None:
    first = PlannedRequest(0, 0.0, Phase.SUSTAINED, "a", 1, 3, session="s")
    turn = PlannedRequest(1, 0.0, Phase.SUSTAINED, "b", 1, 3, session="s", turn=1, follows=0, think_s=1.0)
    talk = LoadPlan(0, [PhaseSpan(Phase.SUSTAINED, 0.0, 20.0)], [first, turn], True)
    with MockProcess(MockOptions(ttft_s=0.02, itl_s=0.005)) as mock:
        result = run(run_load(Target(mock.url, model="m"), talk, LoadOptions(drain_s=5.0), enough=At(1)))
        received = len(mock.log().requests)
    assert ([row.index for row in result.outcomes], received) == ([0], 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cancelled_load_that_is_to_be_kept_ends_there(workers: int) -> None:
    async def main(url: str) -> LoadResult:
        begun = asyncio.Event()

        def seen(progress: Progress) -> None:
            if progress.done:
                begun.set()

        options = LoadOptions(drain_s=5.0)
        load = run_load_over_workers(Target(url, model="m"), plan(), options, seen, workers=workers, keep=True)
        working = asyncio.ensure_future(load)
        await begun.wait()
        working.cancel()
        return await working

    with MockProcess(MockOptions(ttft_s=0.02, itl_s=0.005)) as mock:
        result = run(main(mock.url))
    assert (result.ended, result.client.workers) == (Ended.INTERRUPTED, workers)
    (span,) = result.phases
    assert 0.0 < span.end_s < 15.0
    assert result.counts()[RequestClass.OK] > 0
    assert all(row.intended_s < span.end_s for row in result.outcomes)
    # Whatever was not due any more is no request of this run; two processes may have stopped a moment apart.
    due = sum(request.intended_s < span.end_s for request in plan().requests)
    assert due - workers < len(result.outcomes) <= due
    judged = validity(result, Slos())
    assert not judged.valid
    assert judged.reasons[0].startswith("The run was stopped after ")


def test_what_goes_wrong_while_looking_ends_the_run_with_it() -> None:
    class Broken(At):
        def __call__(self, rows: Sequence[RequestOutcome], now_s: float) -> bool:
            raise ArithmeticError("no such figure")

    with (
        MockProcess(MockOptions(ttft_s=0.02, itl_s=0.005)) as mock,
        pytest.raises(ArithmeticError, match="no such figure"),
    ):
        run(run_load(Target(mock.url, model="m"), plan(), LoadOptions(drain_s=5.0), enough=Broken(1)))


def test_a_shorter_plan_keeps_the_turns_of_what_it_keeps() -> None:
    first = PlannedRequest(0, 0.5, Phase.SUSTAINED, "a", 1, 1, session="s")
    turn = PlannedRequest(1, 5.0, Phase.SUSTAINED, "b", 1, 1, session="s", turn=1, follows=0, think_s=1.0)
    later = PlannedRequest(2, 6.0, Phase.SUSTAINED, "c", 1, 1)
    spans = [PhaseSpan(Phase.WARMUP, 0.0, 0.2), PhaseSpan(Phase.SUSTAINED, 0.2, 8.0), PhaseSpan(Phase.BURST, 8.0, 9.0)]
    cut = plan_until(LoadPlan(0, spans, [first, turn, later], True), 3.0)
    assert [request.index for request in cut.requests] == [0, 1]
    assert [(span.phase, span.end_s) for span in cut.phases] == [(Phase.WARMUP, 0.2), (Phase.SUSTAINED, 3.0)]
