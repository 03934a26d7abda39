"""The answers of a plan: what is known is named before guesses, and nothing is called surer than it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from plan_world import planned, requirement, serving

from setpoint.plan.answers import runs_as_it_is, why_this
from setpoint.plan.planner import Plan, Ranked
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
