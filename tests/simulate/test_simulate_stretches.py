"""A simulation in stretches is the engine's own loop step by step: the same moments to the last bit, the same endings."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from simulated_worlds import Small, small_worlds

from setpoint.simulate.ledger import Ending
from setpoint.simulate.run import simulate

NAMES = {"length": Ending.SERVED, "stop": Ending.SERVED, "shed": Ending.SHED, None: Ending.WAITS}


@settings(max_examples=100, deadline=None)
@given(small_worlds())
def test_stretches_are_the_engines_own_steps(world: Small) -> None:
    found = simulate(world.load(), world.system())
    engine = world.by_the_engine()
    assert found.steps == engine.steps.total
    gaps: list[float] = []
    for row, outcome in enumerate(engine.outcomes):
        told = found.ledger
        streaming = outcome.arrival.streaming
        if outcome.refused:
            impossible = outcome.arrival.prompt_tokens >= world.blocks * 8
            assert told.ending[row] == (Ending.IMPOSSIBLE if impossible else Ending.REFUSED)
            continue
        assert told.ending[row] == NAMES[outcome.finish]
        times = outcome.token_times_s
        assert told.tokens[row] == len(times)
        assert told.preemptions[row] == outcome.preemptions
        assert told.cached_tokens[row] == outcome.cached_tokens
        if times:
            assert (told.joined_s[row], told.first_s[row], told.last_s[row]) == (outcome.joined_s, times[0], times[-1])
        if streaming and len(times) > 1:
            assert told.gap_s[row] == max(np.diff(times))
            gaps += np.diff(times).tolist()
    counts = found.gaps.counts[0]
    assert counts.total == len(gaps)
    assert np.isclose(counts.sum_s, sum(gaps))
