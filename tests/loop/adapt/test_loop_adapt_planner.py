"""Plans are made in another process, at the lowest priority; whatever becomes of that process, there is an answer."""

from __future__ import annotations

import asyncio
import os

import numpy as np
from adapt_world import requirement
from test_loop_adapt_profile import asked, ended

from setpoint.loop.adapt.planner import DEAD, NICENESS, ProcessPlanner
from setpoint.loop.adapt.profile import LiveProfile
from setpoint.loop.adapt.reading import STEP_COLUMNS
from setpoint.loop.adapt.replan import Answer, Question
from setpoint.policy.configuration import ServingConfig


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
