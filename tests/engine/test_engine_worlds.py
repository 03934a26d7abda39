"""Every batching mode in random worlds: nothing is lost, mixed up, over budget or stuck."""

from __future__ import annotations

import pytest
from engine_world import BLOCK_TOKENS, MODEL_LEN, Driver, Life, Run, World, alone, crowded_worlds, worlds
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from setpoint.engine.request import FinishReason
from setpoint.policy.configuration import BatchingMode

MODES = list(BatchingMode)


def check_life(life: Life, world: World) -> None:
    """One request ended exactly once, with exactly the tokens it would have had alone."""
    if life.rejected is not None:
        assert life.rejected.retry_after_s > 0
        assert not life.ends
        return
    assert life.sequence is not None
    assert len(life.ends) == 1, "every admitted request ends exactly once"
    length = min(MODEL_LEN, world.blocks * BLOCK_TOKENS)
    expected, reason = alone(life.arrival.request, length, world.stop_ids)
    match life.ends[0]:
        case FinishReason.CANCELLED:
            assert life.cancelled
            assert life.tokens == expected[: len(life.tokens)]
        case FinishReason.SHED:
            assert world.config.mode is BatchingMode.SETPOINT
            assert not life.tokens, "a request that is being read is never shed"
        case ended:
            assert (life.tokens, ended) == (expected, reason)
    assert life.sequence.emitted == len(life.tokens), "tokens that nobody got are not output"


def check_run(run: Run, world: World) -> None:
    for life in run.lives:
        check_life(life, world)
    delivered = sum(len(life.tokens) for life in run.lives)
    assert run.loop.counters.output_tokens == delivered
    assert run.loop.counters.rejected == sum(life.rejected is not None for life in run.lives)
    assert run.loop.counters.shed == sum(FinishReason.SHED in life.ends for life in run.lives)
    assert sum(sum(result.new_tokens.values()) for result in run.policy.results) == delivered
    if world.config.mode is BatchingMode.IMMEDIATE:
        assert run.most_running <= 1


@pytest.mark.parametrize("mode", MODES)
@given(data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_world_ends_well(mode: BatchingMode, data: st.DataObject) -> None:
    world = data.draw(worlds(mode))
    check_run(Driver(world).run(), world)


@pytest.mark.parametrize("mode", MODES)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_crowd_in_a_small_cache_ends_well(mode: BatchingMode, data: st.DataObject) -> None:
    world = data.draw(crowded_worlds(mode))
    run = Driver(world).run()
    check_run(run, world)
    event(f"preemptions: {min(run.loop.counters.preemptions, 5)}")


@pytest.mark.parametrize("mode", MODES)
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_same_world_gives_the_same_decisions(mode: BatchingMode, data: st.DataObject) -> None:
    world = data.draw(st.one_of(worlds(mode), crowded_worlds(mode)))
    check_same(Driver(world).run(), Driver(world).run())


@pytest.mark.parametrize("mode", MODES)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_drafts_change_nothing_that_anybody_gets(mode: BatchingMode, data: st.DataObject) -> None:
    """Right and wrong drafts of any length, verified beside everything else, in caches that hardly hold the requests."""
    world = data.draw(st.one_of(worlds(mode, speculating=True), crowded_worlds(mode, speculating=True)))
    run = Driver(world).run()
    check_run(run, world)
    drafted = sum(record.drafted for record in run.records)
    accepted = sum(record.accepted for record in run.records)
    assert run.loop.speculator is not None
    counters = run.loop.speculator.counters
    assert (counters.draft_tokens, counters.accepted_tokens) == (drafted, accepted)
    assert sum(counters.accepted_per_position) == accepted <= drafted
    event(f"drafted: {bool(drafted)}, rejected: {drafted > accepted}, preempted: {run.loop.counters.preemptions > 0}")
    check_same(run, Driver(world).run())


def check_same(first: Run, second: Run) -> None:
    assert first.records == second.records
    assert [str(record.reason) for record in first.records] == [str(record.reason) for record in second.records]
