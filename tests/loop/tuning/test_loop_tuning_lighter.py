"""The lighter load under which a configuration would hold what it missed."""

from __future__ import annotations

from tuning_world import NEEDED, SCHEDULE, SPACE, TRUE, requirement

from setpoint.loop.forecast.forecast import outcome_in
from setpoint.loop.forecast.machine import machine_of_timer
from setpoint.loop.forecast.worlds import central_worlds
from setpoint.loop.tuning.lighter import at_share, held_rate_rps

MACHINE = machine_of_timer(TRUE, "a line", 0.05)
WORLD = central_worlds(0)[0]


def test_it_holds_at_the_rate_that_is_told_and_not_at_the_whole() -> None:
    needed, config = requirement(NEEDED.replace("5/s", "40/s")), SPACE["continuous-16"]
    assert not outcome_in(WORLD, needed, config, MACHINE, SCHEDULE, 0.05).held
    rate_rps = held_rate_rps(needed, config, MACHINE, SCHEDULE, seed=0)
    assert rate_rps is not None
    assert 1.0 < rate_rps < 40.0
    assert outcome_in(WORLD, at_share(needed, rate_rps / 40.0), config, MACHINE, SCHEDULE, 0.05).held


def test_where_no_load_helps_it_says_so() -> None:
    impossible = requirement(NEEDED.replace("400ms", "1ms"))
    assert held_rate_rps(impossible, SPACE["continuous-16"], MACHINE, SCHEDULE, seed=0) is None
