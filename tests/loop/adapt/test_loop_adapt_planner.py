"""Plans are made in another process, at the lowest priority; whatever becomes of that process, there is an answer."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from adapt_world import requirement
from test_loop_adapt_profile import asked, ended

from setpoint.loop.adapt.planner import DEAD, NICENESS, ProcessPlanner
from setpoint.loop.adapt.profile import LiveProfile
from setpoint.loop.adapt.reading import STEP_COLUMNS
from setpoint.loop.adapt.replan import MOST_REQUESTS, Answer, Question, load_of
from setpoint.policy.configuration import ServingConfig
from setpoint.policy.views import BATCH, RequestLimits


def question() -> Question:
    live = LiveProfile()
    for number in range(20):
        live.asked(asked(number))
        live.ended(ended(number, 8))
    profile = live.since(0.0, 10.0)
    assert profile is not None
    nothing = {name: np.zeros(0) for name in STEP_COLUMNS}
    return Question(requirement(), profile, ServingConfig(), (), nothing, ())


def how_nice(question: Question) -> Answer:
    return Answer(problem=f"{os.getpid()} {os.nice(0)}")


def dies(question: Question) -> Answer:
    os._exit(1)


def raises(question: Question) -> Answer:
    raise ValueError("that cannot be")


def test_it_runs_elsewhere_and_gives_way() -> None:
    planner = ProcessPlanner(how_nice)
    process, niceness = asyncio.run(planner.answer(question())).problem.split()
    planner.close()
    assert int(process) != os.getpid()
    assert int(niceness) == NICENESS


def test_a_plan_that_cannot_be_made_and_a_process_that_dies_are_answers_too() -> None:
    async def ask_three_times() -> list[str]:
        planner = ProcessPlanner(dies)
        first = await planner.answer(question())
        planner._answer = raises
        second = await planner.answer(question())
        planner.close()
        return [first.problem, second.problem]

    assert asyncio.run(ask_three_times()) == [DEAD, "the plan failed: that cannot be"]


def test_without_steps_there_is_no_plan() -> None:
    planner = ProcessPlanner()
    answer = asyncio.run(planner.answer(question()))
    planner.close()
    assert "at least 50 are needed" in answer.problem
    assert answer.present is None


def world(rate_rps: float, **changes: Any) -> Any:
    profile = replace(question().profile, rate_rps=rate_rps, gap_cv=1.0, **changes)
    return load_of(profile, requirement(), rate_rps, np.random.default_rng(0))


@pytest.mark.parametrize("rate_rps", [0.1, 2.0, 60.0, 130.0, 2000.0])
def test_at_every_rate_there_is_a_window_to_be_judged_after_a_warm_up(rate_rps: float) -> None:
    load = world(rate_rps)
    judged = int((load.phase == 1).sum())
    assert 10 <= judged <= MOST_REQUESTS + 100
    assert load.phases[1].end_s > load.phases[0].end_s
    assert load.sent_s[-1] > 0.8 * load.phases[1].end_s


def test_batch_requests_have_no_limits_in_a_plan_either() -> None:
    load = world(2.0, request_class=np.full(20, BATCH))
    assert [kind.limits for kind in load.kinds] == [RequestLimits()]
