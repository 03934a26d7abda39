"""A request that the executor cannot go on with ends alone, with its reason, and leaves nothing behind."""

from __future__ import annotations

from test_engine_step_loop import Engine, request

from setpoint.engine.request import FinishReason


def test_a_fault_ends_one_request_and_no_other() -> None:
    engine = Engine()
    broken, whole = (engine.loop.submit(request(9, tokens=6, first=first)) for first in (0, 100))
    engine.step()
    assert engine.loop.begin_step()
    broken.fault = "the grammar cannot be followed any further"
    emissions = engine.loop.finish_step()
    engine.loop.check_integrity()
    (end,) = (emission for emission in emissions if emission.sequence is broken)
    assert (end.token, end.finish_reason, end.message) == (None, FinishReason.ERROR, broken.fault)
    assert broken.blocks == []
    engine.drain()
    assert whole.finish_reason is FinishReason.LENGTH
    assert (broken.emitted, whole.emitted) == (1, 6)
    assert engine.loop.pool.used == 0
