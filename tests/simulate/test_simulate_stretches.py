"""A simulation in stretches is the engine's own loop step by step: the same moments to the last bit, the same endings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_worlds import BLOCK, Small, small_worlds, speculating_worlds

from setpoint.engine.request import FinishReason
from setpoint.simulate import stretch_loop
from setpoint.simulate.ledger import Ending, Ledger
from setpoint.simulate.run import Simulated, simulate

ENDINGS = {FinishReason.LENGTH: Ending.SERVED, FinishReason.SHED: Ending.SHED, None: Ending.WAITS}
COLUMNS = ("ending", "joined_s", "first_s", "last_s", "ended_s", "tokens", "cached_tokens", "preemptions", "gap_s", "late_gaps")


@settings(max_examples=60, deadline=None)
@given(st.one_of(small_worlds(), speculating_worlds()))
def test_stretches_are_the_engines_own_steps(world: Small) -> None:
    found = simulate(world.load(), world.system(), gap_limits_s=(0.01, 0.02))
    told, loop = world.by_the_engine()
    assert found.steps == loop.steps.total
    if loop.speculator is not None:
        assert found.drafts == loop.speculator.counters
    ledger, gaps = found.ledger, []
    for row, each in enumerate(told):
        if each.refused:
            impossible = world.requests[row][1] >= world.blocks * BLOCK
            assert ledger.ending[row] == (Ending.IMPOSSIBLE if impossible else Ending.REFUSED)
            continue
        assert each.sequence is not None
        assert ledger.ending[row] == ENDINGS[each.finish]
        assert ledger.tokens[row] == len(each.times_s)
        assert ledger.preemptions[row] == each.sequence.preemptions
        if each.times_s:
            assert ledger.cached_tokens[row] == each.sequence.cached_tokens
            moments = (each.sequence.first_scheduled_s, each.times_s[0], each.times_s[-1])
            assert (ledger.joined_s[row], ledger.first_s[row], ledger.last_s[row]) == moments
        if each.sequence.request.streaming and len(each.times_s) > 1:
            own = np.diff(each.times_s)
            assert ledger.gap_s[row] == own.max()
            assert ledger.late_gaps[:, row].tolist() == [(own > limit_s).sum() for limit_s in (0.01, 0.02)]
            gaps += own.tolist()
    counts = found.gaps.counts[0]
    assert counts.total == len(gaps)
    assert np.isclose(counts.sum_s, sum(gaps))


@settings(max_examples=60, deadline=None)
@given(st.one_of(small_worlds(), speculating_worlds()))
def test_however_long_stretches_are_the_columns_are_the_same(world: Small) -> None:
    found = simulate(world.load(), world.system(), gap_limits_s=(0.01,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretch_loop, "MOST_AT_ONCE", 1)
        single = simulate(world.load(), world.system(), gap_limits_s=(0.01,))
    assert_same(found, single)
    assert found.steps == single.steps


def assert_same(first: Simulated, second: Simulated) -> None:
    """All columns and all gaps are equal, NaN where NaN."""
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(first.ledger, name), getattr(second.ledger, name), name)
    for mine, its in zip(first.gaps.counts, second.gaps.counts, strict=True):
        np.testing.assert_array_equal(mine.counts, its.counts)


@settings(max_examples=60, deadline=None)
@given(st.one_of(small_worlds(), speculating_worlds()))
def test_loop_and_pool_are_whole_after_every_stretch(world: Small) -> None:
    checked = 0
    original = stretch_loop.StretchLoop.finish_stretch

    def finish(self: stretch_loop.StretchLoop, until_s: float) -> float:
        nonlocal checked
        free_s = original(self, until_s)
        self.check_integrity()
        checked += 1
        return free_s

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stretch_loop.StretchLoop, "finish_stretch", finish)
        done = simulate(world.load(), world.system())
    assert checked or not (done.ledger.ending == Ending.SERVED).any()
    conserved(done.ledger, world)


def conserved(ledger: Ledger, world: Small) -> None:
    """Every request ends in one way, and who is served has every token it was to have."""
    outputs = np.array([row[2] for row in world.requests])
    room = np.array([world.blocks * BLOCK - row[1] for row in world.requests])
    served = ledger.ending == Ending.SERVED
    assert (ledger.tokens[served] == np.minimum(outputs, room)[served]).all()
    assert (ledger.tokens[np.isin(ledger.ending, (Ending.REFUSED, Ending.IMPOSSIBLE))] == 0).all()
    assert (ledger.ending != Ending.WAITS).all()
    assert np.isnan(ledger.ended_s).sum() == 0
