"""The loop over a machine that is not there: what it measures, when it stops, what it chooses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import pytest
from tuning_world import SCHEDULE, SPACE, TRUE, VirtualMachine, requirement

from setpoint.engine.request import EngineFailed
from setpoint.loop.forecast.machine import KnownMachine, machine_of_timer
from setpoint.loop.forecast.several import Forecaster
from setpoint.loop.tuning.decide import Action
from setpoint.loop.tuning.history import History
from setpoint.loop.tuning.loop import Measure, Setup, run_loop
from setpoint.loop.tuning.trial import Trial
from setpoint.policy.configuration import ServingConfig
from setpoint.record import Verdict
from setpoint.report.choice import choose

PROCESSES = min(2, os.cpu_count() or 1)


class Loop(Protocol):
    """Runs the loop; ``others``: fields of its setup."""

    def __call__(self, measure: Measure, prior: KnownMachine, **others: Any) -> History: ...


@pytest.fixture(scope="module")
def tuned() -> Iterator[Loop]:
    needed = requirement()
    with Forecaster(needed, SCHEDULE, processes=PROCESSES) as looks:

        def run(measure: Measure, prior: KnownMachine, **others: Any) -> History:
            setup = Setup(requirement=needed, space=SPACE, looks=looks, measure=measure, prior=prior)
            return run_loop(replace(setup, **others))

        yield run


def known(factor: float = 1.0, error: float = 0.1) -> KnownMachine:
    """What a catalogue might say: no measurement, so a prediction from it is no test."""
    return machine_of_timer(replace(TRUE, source="transferred"), "the true line", error).times(factor)


@pytest.fixture(scope="module")
def right(tuned: Loop) -> tuple[History, VirtualMachine]:
    """From a right calibration."""
    machine = VirtualMachine(requirement())
    return tuned(machine, known()), machine


def chosen(history: History) -> str | None:
    return choose(history.entries(), history.objective)[0]


def test_it_settles_on_what_measuring_everything_would_choose(tuned: Loop, right: tuple[History, VirtualMachine]) -> None:
    history, machine = right
    assert history.ended is not None
    assert history.ended.settled
    everything = tuned(VirtualMachine(requirement()), known(), fixed=True)
    assert chosen(history) == chosen(everything) is not None
    assert len(machine.served) <= len(SPACE) // 2


def test_every_step_but_the_last_has_its_reason(right: tuple[History, VirtualMachine]) -> None:
    history, machine = right
    assert [each.decision.name for each in history.iterations] == machine.served
    assert all(each.decision.why for each in history.iterations)
    assert all(each.lesson is not None and each.lesson.after.source == "measured" for each in history.iterations)


def test_the_prediction_shown_was_not_made_from_what_it_is_compared_with(right: tuple[History, VirtualMachine]) -> None:
    history, _ = right
    name = chosen(history)
    assert name is not None
    shown = history.shown_comparison(name)
    assert shown is not None
    assert shown.independent
    assert shown.trial not in shown.learned_from
    assert shown.agrees
    figures = {(each.metric, each.statistic): each for each in shown.figures}
    assert abs(figures["itl", "p50"].error) <= 0.10
    assert abs(figures["e2e", "p50"].error) <= 0.10


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_calibration_that_is_off_by_two_costs_at_most_two_more(
    tuned: Loop, right: tuple[History, VirtualMachine], factor: float
) -> None:
    machine = VirtualMachine(requirement())
    history = tuned(machine, known(factor))
    assert chosen(history) == chosen(right[0])
    assert len(machine.served) <= len(right[1].served) + 2
    learned = history.machine
    assert learned is not None
    assert learned.timer.affine(8, 8)[0] == pytest.approx(TRUE.affine(8, 8)[0], rel=0.15)


def test_a_list_is_measured_whole_in_its_order(tuned: Loop) -> None:
    machine = VirtualMachine(requirement())
    short = {name: SPACE[name] for name in ("static-8", "continuous-16")}
    history = tuned(machine, known(), space=short, fixed=True)
    assert machine.served == list(short)
    assert history.ended is not None
    assert history.ended.settled


def test_an_interrupt_keeps_what_is_complete(tuned: Loop) -> None:
    machine = VirtualMachine(requirement())

    def interrupted(name: str, config: ServingConfig) -> Trial:
        if machine.served:
            raise KeyboardInterrupt
        return machine(name, config)

    history = tuned(interrupted, known(), fixed=True)
    assert history.interrupted
    assert [each.name for each in history.trials] == [next(iter(SPACE))]
    with pytest.raises(KeyboardInterrupt):
        tuned(lambda name, config: interrupted(name, config), known(), fixed=True, space={"static-8": SPACE["static-8"]})


def test_who_cannot_be_served_is_passed_over(tuned: Loop, right: tuple[History, VirtualMachine]) -> None:
    machine = VirtualMachine(requirement())
    broken = right[1].served[0]

    def serve(name: str, config: ServingConfig) -> Trial:
        if name == broken:
            raise EngineFailed("it did not come up")
        return machine(name, config)

    history = tuned(serve, known())
    assert set(history.failures()) == {broken}
    assert machine.served
    assert history.attempts[broken] == 1


def test_if_nothing_can_be_served_the_first_failure_is_raised(tuned: Loop) -> None:
    def serve(name: str, config: ServingConfig) -> Trial:
        raise EngineFailed(f"{name} did not come up")

    with pytest.raises(EngineFailed, match="static-8"):
        tuned(serve, known(), space={"static-8": SPACE["static-8"]}, fixed=True)


def test_what_is_kept_is_not_measured_again(tuned: Loop, right: tuple[History, VirtualMachine]) -> None:
    history, _ = right
    machine = VirtualMachine(requirement())
    again = tuned(machine, known(), kept=history.trials)
    assert machine.served == []
    assert chosen(again) == chosen(history)


def test_the_budget_ends_it_after_the_first(tuned: Loop) -> None:
    machine = VirtualMachine(requirement())
    history = tuned(machine, known(), time_left_s=lambda: 0.5, trial_s=1.0)
    assert len(machine.served) == 1
    assert history.ended is not None
    assert history.ended.action is Action.STOP
    assert not history.ended.settled
    assert "budget" in history.ended.why


def test_what_nothing_can_meet_is_told_without_measuring_everything(tuned: Loop) -> None:
    needed = requirement().model_copy(update={"slo": requirement().slo})
    slow = VirtualMachine(needed, timer=replace(TRUE, base_s=0.2))
    history = tuned(slow, known())
    best = history.best()
    assert best is not None
    assert best.slo.verdict is Verdict.MISSED
    assert history.ended is not None
    assert history.ended.settled
    assert len(slow.served) <= len(SPACE) // 2


def test_a_list_ends_with_the_budget_but_not_before_the_first(tuned: Loop) -> None:
    left_s = iter([0.0, 100.0, 10.0, 0.0, 0.0])
    machine = VirtualMachine(requirement())
    history = tuned(machine, known(), fixed=True, time_left_s=lambda: next(left_s), trial_s=50.0)
    assert 1 <= len(history.trials) < len(SPACE)
    assert history.ended is not None
    assert "The budget is used up" in history.ended.why
    assert "Not measured:" in history.ended.why
