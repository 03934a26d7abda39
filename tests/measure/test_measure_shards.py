"""Shards of a plan: nothing lost, conversations whole, work and limits shared out evenly, arrivals as planned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.measure.fidelity import arrival_figures, declared_fit
from setpoint.measure.options import LoadOptions
from setpoint.measure.shards import most_shards, shard_options, shard_plan, share_out
from setpoint.record import Phase
from setpoint.requirement import ArrivalProcess
from setpoint.workload.arrivals import arrival_offsets_s
from setpoint.workload.plan import LoadPlan, PhaseSpan, PlannedRequest


def plan_of(requests: list[PlannedRequest], concurrency: int | None = None) -> LoadPlan:
    span = PhaseSpan(Phase.SUSTAINED, 0.0, 1000.0)
    return LoadPlan(seed=0, phases=[span], requests=requests, prompt_tokens_exact=True, concurrency=concurrency)


def single(index: int, at_s: float, max_tokens: int = 50) -> PlannedRequest:
    return PlannedRequest(index, at_s, Phase.SUSTAINED, "a", 1, max_tokens)


@st.composite
def plans(draw: st.DrawFn) -> LoadPlan:
    """Plans in which some requests follow an earlier one, with or without the name of a session."""
    requests: list[PlannedRequest] = []
    for index in range(draw(st.integers(1, 60))):
        before = draw(st.sampled_from([None, *requests]))
        session = draw(st.sampled_from([None, f"s{index}"])) if before is None else before.session
        requests.append(
            PlannedRequest(
                index,
                float(index),
                Phase.SUSTAINED,
                "a",
                1,
                draw(st.integers(1, 500)),
                session=session,
                turn=0 if before is None else before.turn + 1,
                follows=None if before is None else before.index,
            )
        )
    return plan_of(requests)


@given(plans(), st.integers(1, 8))
def test_every_request_is_in_one_shard_in_order_and_conversations_are_whole(plan: LoadPlan, wanted: int) -> None:
    count = most_shards(plan, LoadOptions(), wanted)
    assert 1 <= count <= wanted
    shards = shard_plan(plan, count)
    assert len(shards) == count
    assert all(shard.requests for shard in shards)
    assert sorted(request.index for shard in shards for request in shard.requests) == list(range(len(plan.requests)))
    owner = {request.index: number for number, shard in enumerate(shards) for request in shard.requests}
    for shard in shards:
        assert [request.index for request in shard.requests] == sorted(request.index for request in shard.requests)
        assert shard.phases == plan.phases
    for request in plan.requests:
        if request.follows is not None:
            assert owner[request.index] == owner[request.follows]


def test_equal_requests_are_dealt_in_turn() -> None:
    shards = shard_plan(plan_of([single(index, index * 0.1) for index in range(9)]), 3)
    assert [[request.index for request in shard.requests] for shard in shards] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


@given(st.lists(st.integers(1, 400), min_size=10, max_size=200), st.integers(2, 5))
def test_work_is_even_at_any_time(lengths: list[int], count: int) -> None:
    plan = plan_of([single(index, float(index), tokens) for index, tokens in enumerate(lengths)])
    work = [sum(25 + request.max_tokens for request in shard.requests) for shard in shard_plan(plan, count)]
    assert max(work) - min(work) <= 25 + max(lengths)


@pytest.mark.parametrize(("cv", "process"), [(1.0, ArrivalProcess.POISSON), (2.0, ArrivalProcess.GAMMA)])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_arrivals_keep_their_dispersion_for_any_number_of_shards(cv: float, process: ArrivalProcess, count: int) -> None:
    """The sends of all shards together are the plan's own list, whose figures are those of the process."""
    rate_rps, duration_s = 50.0, 30.0

    def draw(until_s: float, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return arrival_offsets_s(process, rate_rps, until_s, rng, cv=cv)

    times_s = draw(duration_s, np.random.default_rng(11))
    shards = shard_plan(plan_of([single(index, float(at_s)) for index, at_s in enumerate(times_s)]), count)
    together_s = np.array([request.intended_s for shard in shards for request in shard.requests])
    assert arrival_figures(together_s, 0.0, duration_s) == arrival_figures(times_s, 0.0, duration_s)
    assert declared_fit(together_s, duration_s, draw).unusual == ()


def test_slots_of_a_closed_loop_are_shared_out_with_the_work_in_proportion() -> None:
    plan = plan_of([single(index, 0.0) for index in range(700)], concurrency=7)
    shards = shard_plan(plan, 3)
    assert [shard.concurrency for shard in shards] == [3, 2, 2]
    assert [len(shard.requests) for shard in shards] == [300, 200, 200]
    with pytest.raises(ValueError, match="cannot be shared out"):
        shard_plan(plan, 8)


def test_no_more_shards_than_there_is_work_for() -> None:
    many = [single(index, 0.0) for index in range(10)]
    assert most_shards(plan_of(many), LoadOptions(), 4) == 4
    assert most_shards(plan_of(many), LoadOptions(max_in_flight=2), 4) == 2
    assert most_shards(plan_of(many, concurrency=3), LoadOptions(), 4) == 3
    assert most_shards(plan_of(many[:1]), LoadOptions(), 4) == 1
    assert most_shards(plan_of([]), LoadOptions(), 4) == 1


def test_limits_are_divided_without_loss_and_nobody_but_the_caller_watches() -> None:
    parts = shard_options(LoadOptions(max_in_flight=8, connections_max=100, drain_s=3.0), 3)
    assert [part.max_in_flight for part in parts] == [3, 3, 2]
    assert [part.connections_max for part in parts] == [34, 33, 33]
    assert not any(part.watch_server for part in parts)
    assert {part.drain_s for part in parts} == {3.0}
    assert [part.max_in_flight for part in shard_options(LoadOptions(), 2)] == [None, None]


@given(st.integers(1, 10_000), st.integers(1, 64))
def test_shares_sum_to_the_whole(total: int, count: int) -> None:
    if total < count:
        with pytest.raises(ValueError, match="each needs at least 1"):
            share_out(total, count)
        return
    shares = share_out(total, count)
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1
