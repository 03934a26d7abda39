"""The loop itself: forecast all, measure the most promising, learn from it, again. It knows nobody who really serves.

forecast -> decide -> measure -> compare -> learn
    ^                                         |
    +-----------------------------------------+
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from setpoint.engine.request import EngineFailed
from setpoint.loop.errors import ServerDied
from setpoint.loop.forecast.forecast import Forecast, summed_up
from setpoint.loop.forecast.machine import KnownMachine
from setpoint.loop.forecast.worlds import central_worlds, extreme_worlds, likely_worlds
from setpoint.loop.tuning.decide import Action, Decision, decide
from setpoint.loop.tuning.history import History, Iteration
from setpoint.loop.tuning.learning import Lesson, learned, requests_lesson, speed_of
from setpoint.loop.tuning.odds import Looks, prospects
from setpoint.loop.tuning.trial import Trial, comparison
from setpoint.measure.probe import ProbeError
from setpoint.policy.configuration import ServingConfig
from setpoint.requirement import Requirement

MOST_ITERATIONS = 64

FAILURES = (EngineFailed, ServerDied, ProbeError)

Measure = Callable[[str, ServingConfig], Trial]
"""Serves a configuration and measures it. Raises one of ``FAILURES`` if that cannot be, ``KeyboardInterrupt`` to end it all."""


def nothing_said(_: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a run of the loop is given.

    space: what may be chosen. prior: the machine before anything was measured. kept: trials of an earlier go. fixed: measure
    every one of ``space`` once, in its order, and nothing twice. trial_s: what a measurement takes, roughly.
    time_left_s: of the budget, ``None`` for no budget. say: hears what is done and why.
    """

    requirement: Requirement
    space: Mapping[str, ServingConfig]
    looks: Looks
    measure: Measure
    prior: KnownMachine
    seed: int = 0
    kept: Sequence[Trial] = ()
    fixed: bool = False
    trial_s: float = 60.0
    time_left_s: Callable[[], float | None] = field(default=lambda: None)
    say: Callable[[str], None] = nothing_said


def run_loop(setup: Setup) -> History:
    """Go round until ``decide`` stops it or the user does. Raises the first failure if nothing at all could be measured."""
    history = History(setup.requirement.objective, machine=setup.prior)
    try:
        for trial in setup.kept:
            _take(setup, history, Decision(Action.MEASURE, trial.name, "Kept from an earlier go."), trial)
        for _ in range(MOST_ITERATIONS):
            decision = _next(setup, history)
            if decision.action is Action.STOP:
                history.ended = decision
                setup.say(decision.why)
                break
            _turn(setup, history, decision)
        best = history.best()
        if best is not None:
            _held_out(setup, history, best.name)
    except KeyboardInterrupt:
        if not history.trials:
            raise
        history.interrupted = True
    if not history.trials:
        raise next(iter(history.failures().values()))
    return history


def _next(setup: Setup, history: History) -> Decision:
    """What to do next; ``history.prospects`` is brought up to date."""
    assert history.machine is not None
    best = history.best()
    if setup.fixed:
        left = [name for name in setup.space if name not in history.attempts]
        time_left_s, trial_s = setup.time_left_s(), _trial_s(setup, history)
        if left and history.attempts and time_left_s is not None and time_left_s < trial_s:
            why = f"The budget is used up: {max(0.0, time_left_s):.0f} s are left and a measurement takes {trial_s:.0f} s."
            return Decision(Action.STOP, best.name if best else None, f"{why} Not measured: {', '.join(left)}.")
        if left:
            return Decision(Action.MEASURE, left[0], f"{len(history.attempts) + 1} of {len(setup.space)}.")
        return Decision(Action.STOP, best.name if best else None, "Every configuration was measured.", settled=True)
    setup.say(f"forecasting {len(setup.space)} configurations from {history.machine.words}, error {history.machine.error:.0%}")
    history.prospects = prospects(setup.space, setup.looks, history.machine, best, setup.requirement.objective, seed=setup.seed)
    decision = _decided(setup, history)
    if best is not None and decision.action is Action.REPEAT and _held_out(setup, history, best.name):
        decision = _decided(setup, history)
    return decision


def _decided(setup: Setup, history: History) -> Decision:
    return decide(
        history.best(),
        history.prospects,
        history.attempts,
        history.comparisons(),
        setup.time_left_s(),
        _trial_s(setup, history),
    )


def _trial_s(setup: Setup, history: History) -> float:
    """Seconds that a measurement takes, by those that were made."""
    return max([each.wall_s for each in history.trials], default=setup.trial_s) or setup.trial_s


def _turn(setup: Setup, history: History, decision: Decision) -> None:
    """Measure whom ``decision`` names, and take what came."""
    assert decision.name is not None
    again = " again" if decision.action is Action.REPEAT else ""
    setup.say(f"[{len(history.trials) + 1}] {decision.name}{again}: {decision.why}")
    try:
        trial = setup.measure(decision.name, setup.space[decision.name])
    except FAILURES as error:
        setup.say(f"{decision.name} failed: {error}")
        forecast = _forecast(setup, history.machine, decision.name)
        history.iterations.append(Iteration(decision, forecast, None, failure=error))
        return
    _take(setup, history, decision, trial)


def _take(setup: Setup, history: History, decision: Decision, trial: Trial) -> None:
    """Compare a measurement with what was foretold of it, and learn from it."""
    before = history.machine
    assert before is not None
    known = tuple(range(len(history.trials))) if before is not setup.prior else ()
    forecast = _forecast(setup, before, trial.name)
    place = len(history.trials)
    compared = comparison(forecast, before, trial, place, known)
    history.trials.append(trial)
    history.machine = learned(history.trials, before)
    lesson = Lesson(before, history.machine, speed_of(trial, before), requests_lesson(forecast, trial))
    history.iterations.append(Iteration(decision, forecast, place, compared, lesson))


def _held_out(setup: Setup, history: History, name: str) -> bool:
    """Compare the last measurement of ``name`` with a prediction from the trials of the others, if nothing tested it yet.

    Whether that could be done.
    """
    place, trial = history.latest[name]
    others = [(number, each) for number, each in enumerate(history.trials) if each.name != name]
    if not others or any(each.trial == place for each in history.comparisons()):
        return False
    machine = learned([each for _, each in others], setup.prior)
    if machine is setup.prior:
        return False
    forecast = _forecast(setup, machine, name)
    told = comparison(forecast, machine, trial, place, tuple(number for number, _ in others))
    history.held_out.append((forecast, told))
    return True


def _forecast(setup: Setup, machine: KnownMachine | None, name: str) -> Forecast:
    """In every world; of a fixed list, where no chances are wanted, not in the likely ones."""
    assert machine is not None
    config = setup.space[name]
    worlds = (*central_worlds(setup.seed), *extreme_worlds(setup.seed))
    worlds = worlds if setup.fixed else (*worlds, *likely_worlds(setup.seed))
    outcomes = setup.looks.outcomes({name: config}, machine, worlds)[name]
    return summed_up(config, outcomes, machine.error_for(config.max_running))
