"""The whole loop on a virtual clock: traffic shifts and it recovers, nothing changes and it rests, it errs and undoes it."""

from __future__ import annotations

from dataclasses import replace

from adapt_world import Traffic, World

from setpoint.loop.adapt.controller import Cause
from setpoint.loop.adapt.effect import Verdict
from setpoint.loop.adapt.rails import Bounds, Rails
from setpoint.loop.adapt.replan import Answer, Forecast, Question, replan
from setpoint.loop.adapt.watching import STEP_TIME
from setpoint.policy.configuration import ServingConfig

LARGE = ServingConfig(mode="continuous", max_running=8, token_budget=512)
SMALL = ServingConfig(mode="continuous", max_running=8, token_budget=64)
CHAT = Traffic(0.0, 1.5, prompt_tokens=48, output_tokens=120)
READING = Traffic(180.0, 1.5, prompt_tokens=400, output_tokens=16)


def test_when_traffic_shifts_it_recovers_within_a_minute_to_what_the_best_would_reach() -> None:
    adaptive = World(LARGE, [CHAT, READING])
    adaptive.run_until(400.0)
    static, best = (World(config, [replace(READING, from_s=0.0)], adapt=False) for config in (LARGE, SMALL))
    for world in (static, best):
        world.run_until(180.0)
    assert adaptive.good_share(0.0, 180.0) > 0.98
    assert static.good_share(60.0, 170.0) < 0.8, "the shift must matter"
    assert adaptive.good_share(240.0, 350.0) >= 0.95 * best.good_share(60.0, 170.0)
    assert [effect.verdict for _, effect in adaptive.effects] == [Verdict.HELPED]
    assert len(adaptive.controller.changes) == 1
    assert {drift.quantity for drift in adaptive.drifts} == {"prompt_tokens", "uncached_tokens", "output_tokens"}
    assert min(drift.at_s for drift in adaptive.drifts) < 200.0


def test_in_ten_minutes_of_the_same_nothing_is_changed() -> None:
    """Near the edge, where some limits are missed by chance and plans are made for it."""
    world = World(LARGE, [Traffic(0.0, 1.0, prompt_tokens=150, output_tokens=60)], seed=1)
    world.run_until(600.0)
    assert world.drifts == []
    assert list(world.controller.changes) == []


def test_a_promise_that_is_not_kept_is_taken_back_and_not_made_again() -> None:
    """A planner that is always wrong: it promises everything of one request at a time."""
    worst = LARGE.model_copy(update={"max_running": 1})

    def wrong(question: Question) -> Answer:
        config = worst if question.present == LARGE else LARGE
        present = Forecast(question.present, 0.4, 0.0, 0.0, 5)
        return Answer(present, (Forecast(config, 1.0, 0.6, 0.1, 5),), 1, 0, 1.0)

    rails = Rails(bounds=Bounds(max_running=(1, 16)), periodic_s=100.0)
    world = World(LARGE, [Traffic(0.0, 2.0, prompt_tokens=48, output_tokens=100)], rails=rails, planner=wrong)
    world.run_until(420.0)
    assert [effect.verdict for _, effect in world.effects] == [Verdict.HARMED]
    assert world.controller.config == LARGE
    assert len(world.plans) >= 3, "it goes on to plan"
    assert len(world.controller.changes) == 2, "there and back, no more"
    assert all(decision.why.startswith("the better ones were tried") for _, decision in world.decisions[1:])
    taken_back_s = world.effects[0][0]
    assert world.good_share(taken_back_s + 30.0, 410.0) > 0.95


def test_a_machine_that_slows_down_is_noticed_though_traffic_is_the_same() -> None:
    world = World(LARGE, [Traffic(0.0, 1.0, prompt_tokens=60, output_tokens=60)])
    world.run_until(300.0)
    assert world.drifts == []
    world.slowness = 1.6
    world.run_until(420.0)
    assert STEP_TIME in {drift.quantity for drift in world.drifts}
    assert Cause.DRIFT in {cause for _, cause, _, _ in world.plans}


def test_a_plan_is_the_same_whenever_it_is_made_and_stops_when_its_time_is_up() -> None:
    world = World(LARGE, [CHAT, READING])
    world.run_until(200.0)
    _, _, question, answer = world.plans[0]
    larger = question.present.model_copy(update={"kv_cache_tokens": 2 * question.present.kv_cache_tokens})
    again = replan(replace(question, only_restart=(larger,)), used=lambda: 0.0)
    assert (again.present, again.forecasts) == (answer.present, answer.forecasts)
    assert again.left_out == 0
    assert [(each.config, each.sure) for each in again.restart] == [(larger, False)], "the cache is not what is short"
    hurried = replan(question, used=lambda: 2.0)
    assert hurried.screened == 0
    assert hurried.left_out == len(question.choices)
    assert hurried.present is not None
