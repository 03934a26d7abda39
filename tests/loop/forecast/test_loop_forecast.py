"""Forecasts: what they are made from, that they are the same again, and what makes them unsure."""

from __future__ import annotations

import sys
from math import exp
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "tuning"))

from tuning_world import NEEDED, SCHEDULE, SPACE, TRUE, VirtualMachine, requirement

from setpoint.loop.forecast.forecast import forecast, summed_up
from setpoint.loop.forecast.machine import LEAST_ERROR, UNSEEN_ERROR, KnownMachine, machine_of_runs, machine_of_timer
from setpoint.loop.forecast.several import Forecaster
from setpoint.loop.forecast.worlds import central_worlds, extreme_worlds, likely_worlds
from setpoint.loop.tuning.trial import Trial
from setpoint.record import Verdict
from setpoint.simulate.calibrated import TooFewSteps

CONFIG = SPACE["continuous-16"]


def known(error: float = 0.1) -> KnownMachine:
    return machine_of_timer(TRUE, "the true line", error)


@pytest.fixture(scope="module")
def trial() -> Trial:
    return VirtualMachine(requirement())("continuous-16", CONFIG)


def learned(*trials: Trial) -> KnownMachine:
    return machine_of_runs([each.tables for each in trials if each.tables is not None])


def test_the_same_forecast_again() -> None:
    first, second = (forecast(requirement(), CONFIG, known(), seed=3, schedule=SCHEDULE) for _ in range(2))
    assert first.predicted == second.predicted
    assert first.held_probability == second.held_probability


def test_a_slower_machine_is_seen_slower() -> None:
    quick, slow = (forecast(requirement(), CONFIG, known().times(f), schedule=SCHEDULE).predicted.sustained for f in (1.0, 2.0))
    assert slow.itl_s.p50 is not None
    assert quick.itl_s.p50 is not None
    assert slow.itl_s.p50 > 1.9 * quick.itl_s.p50


def test_what_is_far_from_its_limits_is_sure_and_what_is_far_over_them_as_well() -> None:
    easy = requirement(NEEDED.replace("400ms", "2s").replace("60ms", "500ms"))
    assert forecast(easy, CONFIG, known(0.05), schedule=SCHEDULE).held_probability == 1.0
    hopeless = forecast(requirement(), SPACE["immediate"], known(0.05), schedule=SCHEDULE)
    assert hopeless.held_probability == 0.0
    assert hopeless.slo.verdict is Verdict.MISSED


def test_a_machine_is_learned_from_a_run(trial: Trial) -> None:
    machine = learned(trial)
    assert machine.source == "measured"
    for tokens, sequences in ((1, 1), (4, 4), (8, 8), (100, 5)):
        assert machine.timer.affine(tokens, sequences)[0] == pytest.approx(TRUE.affine(tokens, sequences)[0], rel=0.2)
    assert LEAST_ERROR <= machine.error < 0.1
    assert machine.error_for(3 * (machine.most_sequences or 0)) > UNSEEN_ERROR


def test_runs_at_other_speeds_make_it_less_sure(trial: Trial) -> None:
    slower = VirtualMachine(requirement(), timer=TRUE.__class__(0.016, 0.0005, 0.0008, 2.6e-6, 1.3e-7))("continuous-16", CONFIG)
    both = learned(trial, slower)
    assert both.error > 1.5 * learned(trial).error
    for first, last in ((trial, slower), (slower, trial)):
        now_s = learned(first, last).timer.affine(4, 4)[0]
        assert now_s == pytest.approx(learned(last).timer.affine(4, 4)[0], rel=0.1)


def test_too_few_steps_teach_nothing(trial: Trial) -> None:
    tables = trial.tables
    assert tables is not None
    with pytest.raises(TooFewSteps):
        machine_of_runs([tables.__class__(tables.requests, tables.steps.slice(0, 20))])
    with pytest.raises(ValueError, match="no run"):
        machine_of_runs([])


def test_other_processes_say_the_same() -> None:
    worlds = (*central_worlds(0, 1), *extreme_worlds(0))
    configs = {name: SPACE[name] for name in ("static-8", "continuous-16")}
    with Forecaster(requirement(), SCHEDULE) as here, Forecaster(requirement(), SCHEDULE, processes=2) as there:
        ours, theirs = (each.outcomes(configs, known(), worlds) for each in (here, there))
    assert ours == theirs
    assert [each.world for each in ours["static-8"]] == list(worlds)
    assert here.forecasts(configs, known(), worlds)["static-8"].predicted.source == "measured"


def test_worlds_are_equally_likely_parts() -> None:
    stretches = np.array([world.stretch(0.2) for world in likely_worlds(0)])
    assert (np.diff(stretches) > 0).all()
    assert np.median(stretches) == pytest.approx(1.0, rel=1e-3)
    fast, slow = extreme_worlds(0)
    assert fast.stretch(0.2) == pytest.approx(exp(-0.2 * 1.6449), rel=1e-3)
    assert slow.stretch(0.2) > stretches[-2]


def test_a_forecast_needs_a_central_world() -> None:
    with pytest.raises(ValueError, match="as predicted"):
        summed_up(CONFIG, (), 0.1)
