"""The timer that the dispatcher runs on."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest
import uvloop

from setpoint.measure.timer import DueTimer


async def fire_three_times() -> list[float]:
    """Set the timer 30 ms, 0.2 ms and -5 ms ahead, one after the other; return how late each fired (s)."""
    late_s: list[float] = []
    over = asyncio.get_running_loop().create_future()
    waits_s = iter([0.03, 0.0002, -0.005])
    due_s = 0.0

    def set_next() -> None:
        nonlocal due_s
        due_s = monotonic() + next(waits_s)
        due_timer.set(due_s)

    def fired() -> None:
        late_s.append(monotonic() - due_s)
        if len(late_s) == 3:
            over.set_result(None)
        else:
            set_next()

    due_timer = DueTimer(fired)
    set_next()
    await over
    due_timer.close()
    return late_s


@pytest.mark.parametrize("uv", [True, False])
def test_fires_once_for_each_time_and_not_early(uv: bool) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uv else None) as runner:
        late_s = runner.run(fire_three_times())
    assert len(late_s) == 3
    assert min(late_s) >= 0


def test_without_timer_descriptors_the_loops_own_timer_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("setpoint.measure.timer.sys.platform", "darwin")
    with asyncio.Runner() as runner:
        assert len(runner.run(fire_three_times())) == 3


def test_closed_timer_fires_no_more() -> None:
    async def main() -> list[str]:
        fired: list[str] = []
        one, other = DueTimer(lambda: fired.append("closed")), DueTimer(lambda: fired.append("open"))
        one.set(monotonic() + 0.01)
        one.close()
        other.set(monotonic() + 0.02)
        while not fired:
            await asyncio.sleep(0.01)
        return fired

    with asyncio.Runner() as runner:
        assert runner.run(main()) == ["open"]
