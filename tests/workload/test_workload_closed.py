"""Plans of closed loops: by number or by time, with or without sessions, the same from the same seed."""

from __future__ import annotations

from typing import Any

import pytest

from setpoint.record import Phase
from setpoint.requirement import Arrival, ConstantTokens, RequestProfile, Sessions, UniformTokens
from setpoint.workload import EstimatedPrompts, LoadPlan, plan_closed

PROFILE = RequestProfile(
    prompt_tokens=UniformTokens(min=30, max=60), output_tokens=ConstantTokens(value=20), arrival=Arrival(rate_rps=1.0)
)
TALK = PROFILE.model_copy(update={"sessions": Sessions(turns=UniformTokens(min=1, max=5))})


def plan(profile: RequestProfile = PROFILE, **changes: Any) -> LoadPlan:
    arguments: dict[str, Any] = {"concurrency": 4, "seed": 1, "warmup_s": 2.0, "make_prompt": EstimatedPrompts()}
    return plan_closed(profile, **(arguments | changes))


def test_by_number_there_are_exactly_so_many_after_the_first_of_every_user() -> None:
    load = plan(requests=50)
    assert load.offered == {Phase.WARMUP: 4, Phase.SUSTAINED: 50}
    assert [request.phase for request in load.requests[:5]] == [Phase.WARMUP] * 4 + [Phase.SUSTAINED]
    assert not load.by_time
    assert load.concurrency == 4
    assert plan(requests=50, warmup_s=0.0).offered == {Phase.SUSTAINED: 50}


def test_by_number_the_last_session_may_be_cut() -> None:
    load = plan(TALK, requests=50)
    assert load.offered[Phase.SUSTAINED] == 50
    for request in load.requests:
        if request.follows is not None:
            assert load.requests[request.follows].session == request.session
            assert request.follows == request.index - 1


def test_by_time_there_are_more_than_a_fast_server_takes() -> None:
    load = plan(duration_s=30.0)
    assert [(span.phase, span.start_s, span.end_s) for span in load.phases] == [
        (Phase.WARMUP, 0.0, 2.0),
        (Phase.SUSTAINED, 2.0, 32.0),
    ]
    assert load.by_time
    # 20 tokens at 1 ms and 5 ms for the rest: 40 requests/s for each of 4 users.
    assert len(load.requests) == pytest.approx(4 * 32 * 40, rel=0.01)
    assert {request.intended_s for request in load.requests} == {0.0}


def test_by_time_long_prompts_make_fewer_requests() -> None:
    long = PROFILE.model_copy(update={"prompt_tokens": ConstantTokens(value=100_000)})

    def blank(**arguments: Any) -> Any:
        return EstimatedPrompts()(**(arguments | {"tokens": 1}))

    assert len(plan(long, duration_s=3000.0, concurrency=64, make_prompt=blank).requests) == 400


def test_the_seed_decides() -> None:
    assert plan(requests=20) == plan(requests=20)
    assert plan(requests=20).requests != plan(requests=20, seed=2).requests
    assert len({request.prompt for request in plan(requests=200).requests}) == 204


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"requests": 5, "concurrency": 0}, "concurrency is 0; allowed: 1 to"),
        ({"requests": 5, "duration_s": 1.0}, "give one of them"),
        ({}, "give one of them"),
        ({"requests": 0}, "requests is 0; allowed: 1 to"),
        ({"duration_s": 0.0}, "duration_s is 0.0; allowed: more than 0 s"),
        ({"requests": 5, "seed": -1}, "seed is -1"),
        ({"requests": 5, "warmup_s": float("inf")}, "warmup_s is inf"),
    ],
)
def test_what_cannot_be_planned_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**changes)
