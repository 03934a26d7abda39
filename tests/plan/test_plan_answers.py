"""The answers of a plan: what is known is named before guesses, and nothing is called surer than it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from plan_world import planned, requirement, serving

from setpoint.plan.answers import if_doubled, limit_costs, measure_next, recommendation, runs_as_it_is, why_this
from setpoint.plan.planner import Plan, Ranked, Standing
from setpoint.plan.topology import Scheduler
from setpoint.policy.configuration import BatchingMode

CHEAP_GUESS = {"h100-sxm": 50.0, "mi300x": 1.0}


def changed(plan: Plan, which: Callable[[Ranked], bool], change: Callable[[Ranked], Ranked]) -> Plan:
    """The plan with some of its ranking otherwise."""
    return replace(plan, ranked=tuple(change(each) if which(each) else each for each in plan.ranked))


def unsure(each: Ranked) -> Ranked:
    """Holding as predicted, with less than the confidence that is asked for."""
    return replace(each, headroom=replace(each.headroom, met_probability=0.8))


def under(scheduler: Scheduler, hardware: str) -> Callable[[Ranked], bool]:
    return lambda each: each.option.serving.scheduler is scheduler and each.option.shape.hardware == hardware


def test_under_the_engines_own_scheduler_what_is_known_comes_before_a_guess() -> None:
    """Seen: where nothing under it was sure, the first of the ranking was named, a guess, without a word of that."""
    plan, _ = planned(requirement(), hardware=("h100-sxm", "mi300x"), prices=CHEAP_GUESS)
    assert plan.ranked[0].option.guess
    assert plan.chosen is not None
    deadlines = replace(plan.chosen, option=replace(plan.chosen.option, serving=serving(BatchingMode.SETPOINT)))
    plan = changed(replace(plan, chosen=deadlines), under(Scheduler.VLLM, "h100-sxm"), unsure)
    said = runs_as_it_is(plan) or ""
    assert "h100-sxm" in said
    assert said.endswith("with probability 80 %.")
    guesses = changed(plan, under(Scheduler.VLLM, "h100-sxm"), lambda each: replace(each, holds=False))
    said = runs_as_it_is(guesses) or ""
    assert "mi300x" in said
    assert said.endswith("so the error of its steps is itself a guess.")


def test_why_not_other_hardware_says_what_is_a_guess() -> None:
    plan, _ = planned(requirement(), hardware=("h100-sxm", "a100-80", "mi300x"))
    assert plan.chosen is not None
    assert not plan.chosen.option.guess
    said = {name: sentence for sentence in why_this(plan)[1:] for name in ("h100-sxm", "a100-80", "mi300x") if name in sentence}
    assert said.pop("mi300x").endswith(", but the error of its steps is itself a guess.")
    assert said
    assert not any("guess" in sentence for sentence in said.values())


def test_twice_the_load_that_only_a_guess_carries_is_not_said_to_be_carried_by_nothing() -> None:
    """Seen: "cannot be carried within the bounds by anything looked at", where hardware nobody measured holds as predicted."""
    asked = requirement(**{"40/s": "30/s"})
    plan, _ = planned(asked, hardware=("h100-sxm", "mi300x"), parallel=(1,), max_gpus=2)
    assert plan.standing is Standing.SURE
    said = if_doubled(plan) or ""
    assert "mi300x" in said
    assert said.endswith("so the error of its steps is itself a guess.")
    known, _ = planned(asked, hardware=("h100-sxm",), parallel=(1,), max_gpus=2)
    assert if_doubled(known) == "Twice the load cannot be carried within the bounds by anything looked at."


def test_twice_the_load_says_with_which_probability_it_is_carried_where_that_is_too_little() -> None:
    plan, _ = planned(requirement(**{"40/s": "20/s"}), hardware=("h100-sxm",), parallel=(1,), max_gpus=2)
    assert (plan.standing, plan.chosen is not None) == (Standing.SURE, True)
    assert plan.doubled is not None
    assert plan.doubled.headroom.met_probability < plan.asked.confidence
    assert "It holds as predicted, but only with probability" in (if_doubled(plan) or "")


def test_a_tighter_limit_that_only_a_guess_may_meet_is_not_said_to_be_met_by_nothing() -> None:
    two, prices = ("h100-sxm", "mi300x"), {"h100-sxm": 3.0, "mi300x": 9.0}
    plan, _ = planned(requirement(), hardware=two, parallel=(1,), prices=prices)
    assert plan.standing is Standing.SURE
    unmet = tuple(replace(price, moved_usd_per_h=None) for price in plan.shadow)
    assert all("by anything looked at that is no guess" in said for said in limit_costs(replace(plan, shadow=unmet)))
    known = tuple(each for each in plan.ranked if not each.option.guess)
    assert "no guess" not in " ".join(limit_costs(replace(plan, shadow=unmet, ranked=known)))


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ({"step_error": 0.2, "ttft_error": 0.48}, "Steps are known to 20 % and TTFT to 48 % (one standard error)"),
        ({"step_error": 0.3, "ttft_error": 0.3}, "Steps are known to 30 % (one standard error)"),
        ({"step_error": 0.45, "ttft_error": 0.5, "guess": True}, "How far steps are off is a guess, taken as 45 %;"),
        (
            {"step_error": 0.2, "guess": True, "only_drafting": True},
            "How far steps with drafts are off is a guess, taken as 20 %;",
        ),
    ],
)
def test_what_is_known_is_not_stated_of_a_guess_nor_of_a_ttft_that_nobody_measured(errors: dict[str, Any], said: str) -> None:
    """Seen: where steps were observed their error was stated as that of TTFT; and a guess as one standard error."""
    plan, _ = planned(requirement(), hardware=("h100-sxm",), parallel=(1,))
    assert plan.chosen is not None
    chosen = replace(plan.chosen, option=replace(plan.chosen.option, source="transferred", **errors))
    assert said in (measure_next(replace(plan, chosen=chosen)) or "")
    error = f"(error {errors['step_error'] * 100:.0f} %{', a guess' if chosen.option.guess else ''})"
    assert error in recommendation(replace(plan, chosen=chosen))
