"""The rails: how often, how sure, how far, and what is not tried again."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.loop.adapt.choices import MOST_CHOICES, choices, distance, live_key
from setpoint.loop.adapt.controller import Cause, Controller, Effect, Seen
from setpoint.loop.adapt.effect import Prediction, Verdict
from setpoint.loop.adapt.profile import Asked
from setpoint.loop.adapt.rails import Bounds, Rails
from setpoint.loop.adapt.replan import Answer, Forecast
from setpoint.policy.configuration import BatchingMode, ServingConfig

START = ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=8, token_budget=512)
BETTER = START.model_copy(update={"token_budget": 64})
RAILS = Rails(most_changes_per_hour=3, dwell_s=20.0)


def answer(
    config: ServingConfig = BETTER, *, present: ServingConfig = START, gain: float = 0.4, uncertainty: float = 0.1
) -> Answer:
    base = Forecast(present, 0.5, 0.0, 0.0, 5)
    return Answer(base, (Forecast(config, 0.5 + gain, gain, uncertainty, 5),), 1, 0, 2.0)


def told(controller: Controller, now_s: float, good: int, bad: int = 0, *, over_s: float = 10.0) -> None:
    """Requests that came during ``over_s`` before now and have ended."""
    count = good + bad
    outcomes = [(now_s - over_s * (1 - place / count), place < good) for place in range(count)]
    controller.see(now_s, Seen(outcomes=outcomes))


def asks(controller: Controller, now_s: float, count: int = 20) -> None:
    controller.see(now_s, Seen([Asked(f"{now_s}-{number}", now_s - 1 + number / 100, 50, 50, 9) for number in range(count)]))


def change(controller: Controller, now_s: float, config: ServingConfig = BETTER) -> None:
    controller.applied(now_s, config, Prediction(0.5, 0.9, 0.4, 0.1))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"gain": 0.02, "uncertainty": 0.0}, "nothing gains 0.03 or more"),
        ({"gain": 0.3, "uncertainty": 0.31}, "uncertain by 0.310"),
        ({"gain": -0.2}, "nothing gains"),
        ({"config": START.model_copy(update={"max_running": 65})}, "outside the bounds"),
        ({"config": START.model_copy(update={"mode": BatchingMode.STATIC})}, "outside the bounds"),
    ],
)
def test_a_change_needs_a_sure_gain_within_the_bounds(wrong: dict[str, object], why: str) -> None:
    decision = Controller(START, RAILS).planned(100.0, answer(**wrong))  # type: ignore[arg-type]
    assert decision.config is None
    assert why in decision.why


def test_a_sure_gain_is_taken() -> None:
    decision = Controller(START, RAILS).planned(100.0, answer())
    assert decision.config == BETTER
    assert decision.prediction == Prediction(0.5, 0.9, 0.4, 0.1)


def test_no_more_changes_than_allowed_in_an_hour() -> None:
    controller = Controller(START, RAILS)
    for number in range(3):
        change(controller, 100.0 * number)
    blocked = controller.planned(400.0, answer(START, present=BETTER))
    assert blocked.config is None
    assert "3 changes within the hour" in blocked.why
    assert controller.planned(3601.0, answer(START, present=BETTER)).config == START


def test_no_plan_before_the_dwell_time_is_over_and_none_beside_another() -> None:
    rails = replace(RAILS, periodic_s=5.0, replan_s=1.0)
    controller = Controller(START, rails)
    assert controller.due(0.0) is None
    asks(controller, 6.0)
    assert controller.due(6.0) is Cause.PERIODIC
    assert controller.begin_plan(6.0) is not None
    assert controller.due(7.0) is None, "one plan at a time"
    change(controller, 8.0)
    controller.plan_failed(8.0)
    controller.trial = None
    assert controller.due(27.9) is None
    assert controller.due(200.0) is not None


def test_a_plan_for_another_configuration_than_the_present_one_is_void() -> None:
    controller = Controller(START, RAILS)
    change(controller, 10.0)
    assert controller.planned(11.0, answer(present=START)).config is None


def test_what_did_not_help_is_rolled_back_and_not_tried_again_for_a_while() -> None:
    controller = Controller(START, RAILS)
    told(controller, 100.0, good=30, bad=10)
    change(controller, 100.0)
    told(controller, 145.0, good=2, bad=38, over_s=30.0)
    assert controller.effect(139.0) is None, "not before settling and trial are over"
    effect = controller.effect(145.0)
    assert isinstance(effect, Effect)
    assert (effect.verdict, effect.restore) == (Verdict.HARMED, START)
    controller.restored(145.0, effect)
    assert controller.config == START
    assert controller.planned(300.0, answer()).why.startswith("the better ones were tried lately")
    other = START.model_copy(update={"token_budget": 128})
    assert controller.planned(300.0, answer(other)).config == other
    later = Controller(START, RAILS)
    later._tabu = dict(controller._tabu)
    assert later.planned(146.0 + RAILS.forget_s, answer()).config == BETTER


def test_what_helped_stays() -> None:
    controller = Controller(START, RAILS)
    told(controller, 100.0, good=10, bad=30)
    change(controller, 100.0)
    told(controller, 145.0, good=40, over_s=30.0)
    effect = controller.effect(145.0)
    assert effect is not None
    assert (effect.verdict, effect.restore) == (Verdict.HELPED, None)
    assert controller.config == BETTER
    assert controller.effect(146.0) is None


def test_without_traffic_a_change_is_not_judged_for_ever() -> None:
    controller = Controller(START, RAILS)
    change(controller, 100.0)
    assert controller.effect(150.0) is None
    effect = controller.effect(100.0 + RAILS.most_trial_s)
    assert effect is not None
    assert effect.verdict is Verdict.UNMEASURED


def test_missed_limits_ask_for_a_plan_but_less_and_less_often() -> None:
    controller = Controller(START, replace(RAILS, periodic_s=1e6))
    planned: list[float] = []
    for now_s in range(0, 3600, 2):
        told(controller, float(now_s), good=1, bad=1, over_s=1.0)
        asks(controller, float(now_s), 1)
        if controller.due(float(now_s)) is Cause.MISSED and controller.begin_plan(float(now_s)) is not None:
            planned.append(now_s)
            controller.planned(now_s + 1.0, answer(gain=0.0))
    gaps = [later - earlier for earlier, later in pairwise(planned)]
    assert planned[0] >= RAILS.replan_s
    assert gaps == sorted(gaps)
    assert len(planned) <= 10


def test_after_a_drift_a_gain_that_is_not_sure_yet_is_looked_at_again_soon_but_not_for_ever() -> None:
    controller = Controller(START, RAILS)
    for number in range(120):
        far = 500 if number >= 96 else 50
        controller.see(0.5 * number, Seen([Asked(f"a{number}", 0.5 * number, far, far, 9)]))
    planned: list[float] = []
    for now_s in range(60, 300, 2):
        told(controller, float(now_s), good=1, bad=9, over_s=1.0)
        if controller.due(float(now_s)) is not None and controller.begin_plan(float(now_s)) is not None:
            planned.append(now_s)
            controller.planned(float(now_s), answer(gain=0.3, uncertainty=0.4))
    gaps = [later - earlier for earlier, later in pairwise(planned)]
    assert gaps[:3] == [10.0, 10.0, 10.0]
    assert all(gap >= RAILS.replan_s for gap in gaps[3:])


@given(
    st.sampled_from(BatchingMode),
    st.integers(1, 200),
    st.integers(1, 5000),
    st.lists(st.sampled_from(BatchingMode), min_size=1, max_size=4, unique=True),
)
@settings(max_examples=60)
def test_choices_are_within_bounds_bounded_and_nearest_first(
    mode: BatchingMode, running: int, budget: int, modes: list[BatchingMode]
) -> None:
    present = ServingConfig(mode=mode, max_running=running, token_budget=budget)
    bounds = Bounds(modes=tuple(modes)).around(present)
    assert bounds.allow(present)
    found = choices(present, bounds)
    assert 0 < len(found) <= MOST_CHOICES
    assert present not in found
    assert len(set(found)) == len(found)
    assert all(bounds.allow(config) for config in found)
    assert [distance(present, each) for each in found] == sorted(distance(present, each) for each in found)
    assert len({live_key(each) for each in found}) == len(found)


def test_rails_are_above_nothing() -> None:
    with pytest.raises(ValueError, match="dwell_s is 0"):
        Rails(dwell_s=0)


def test_requests_that_are_late_and_have_not_ended_count_as_missed() -> None:
    controller = Controller(START, RAILS)
    controller.due(0.0)
    controller.see(100.0, Seen(under_way=[(60.0 + place, False) for place in range(30)]))
    assert controller.due(100.0) is Cause.MISSED
    controller.see(102.0, Seen())
    assert controller.due(102.0) is not Cause.MISSED


def test_what_was_served_under_another_configuration_is_not_the_before_of_a_change() -> None:
    controller = Controller(START, RAILS)
    told(controller, 100.0, good=40)
    change(controller, 100.0)
    told(controller, 140.0, good=0, bad=40)
    unjudged = controller.applied(141.0, START, Prediction(0.5, 0.9, 0.4, 0.1))
    assert unjudged is not None
    assert (unjudged.verdict, unjudged.trial.config, unjudged.restore) == (Verdict.OVERTAKEN, BETTER, None)
    assert controller.trial is not None
    assert controller.trial.began_s == 100.0 + RAILS.settle_s
