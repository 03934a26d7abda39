"""A plan has its phases back to back, every request inside its phase, and depends on nothing but its arguments."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workload_tokenizers import encode_words

from setpoint.record import Phase
from setpoint.requirement import (
    Arrival,
    ArrivalProcess,
    Burst,
    ConstantTokens,
    RequestProfile,
    UniformTokens,
    example_names,
    example_text,
    parse_requirement,
)
from setpoint.requirement.arrival import STATIONARY
from setpoint.workload import EstimatedPrompts, LoadPlan, Prompt, TextPrompts, TokenIdPrompts, plan_load

PROFILE = RequestProfile(
    prompt_tokens=UniformTokens(min=30, max=60),
    output_tokens=UniformTokens(min=4, max=8),
    shared_prefix_tokens=16,
    arrival=Arrival(rate_rps=5.0),
    burst=Burst(rate_rps=20.0, duration_s=3.0),
)


def plan(profile: RequestProfile = PROFILE, **changes: Any) -> LoadPlan:
    arguments: dict[str, Any] = {"seed": 1, "warmup_s": 2.0, "sustained_s": 20.0, "recovery_s": 4.0}
    return plan_load(profile, **({"make_prompt": EstimatedPrompts()} | arguments | changes))


def in_phase(load: LoadPlan, phase: Phase) -> list[tuple[float, object, int, int]]:
    """Requests of a phase, timed from its start."""
    start_s = next(span.start_s for span in load.phases if span.phase is phase)
    return [
        (round(request.intended_s - start_s, 9), request.prompt, request.prompt_tokens, request.max_tokens)
        for request in load.requests
        if request.phase is phase
    ]


def test_phases_are_back_to_back() -> None:
    load = plan(burst_repeats=2)
    assert [(span.phase, span.start_s, span.end_s) for span in load.phases] == [
        (Phase.WARMUP, 0.0, 2.0),
        (Phase.SUSTAINED, 2.0, 22.0),
        (Phase.BURST, 22.0, 25.0),
        (Phase.RECOVERY, 25.0, 29.0),
        (Phase.BURST, 29.0, 32.0),
        (Phase.RECOVERY, 32.0, 36.0),
    ]
    assert load.duration_s == 36.0


def test_phases_without_length_and_bursts_that_are_not_declared_are_left_out() -> None:
    assert [span.phase for span in plan(warmup_s=0.0, recovery_s=0.0).phases] == [Phase.SUSTAINED, Phase.BURST]
    quiet = PROFILE.model_copy(update={"burst": None})
    assert [span.phase for span in plan(quiet).phases] == [Phase.WARMUP, Phase.SUSTAINED]


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**40),
    process=st.sampled_from(STATIONARY),
    warmup_s=st.floats(0, 5),
    sustained_s=st.floats(0.1, 10),
    recovery_s=st.floats(0, 5),
    burst_repeats=st.integers(0, 3),
)
def test_every_request_is_inside_its_phase(process: ArrivalProcess, **arguments: Any) -> None:
    profile = PROFILE.model_copy(update={"arrival": Arrival(process=process, rate_rps=5.0)})
    load = plan(profile, **arguments)
    assert [request.index for request in load.requests] == list(range(len(load.requests)))
    assert all(one.intended_s <= other.intended_s for one, other in pairwise(load.requests))
    assert sum(load.offered.values()) == len(load.requests)
    for request in load.requests:
        spans = [span for span in load.phases if span.phase is request.phase]
        assert any(span.start_s <= request.intended_s <= span.end_s for span in spans)
        assert 30 <= request.prompt_tokens <= 60
        assert 4 <= request.max_tokens <= 8


def test_one_seed_decides_everything() -> None:
    assert plan() == plan()
    assert plan().requests != plan(seed=2).requests


def test_a_longer_warmup_leaves_the_measured_phases_as_they_were() -> None:
    short, long = plan(warmup_s=0.0), plan(warmup_s=7.0)
    for phase in (Phase.SUSTAINED, Phase.BURST, Phase.RECOVERY):
        assert in_phase(short, phase) == in_phase(long, phase)


def test_output_lengths_leave_arrivals_and_prompts_as_they_were() -> None:
    other = plan(PROFILE.model_copy(update={"output_tokens": ConstantTokens(value=3)}))
    assert [row[:3] for row in in_phase(plan(), Phase.SUSTAINED)] == [row[:3] for row in in_phase(other, Phase.SUSTAINED)]


def test_repeated_bursts_are_different_draws() -> None:
    load = plan(burst_repeats=2)
    first, second = (span for span in load.phases if span.phase is Phase.BURST)
    offsets = [
        [round(r.intended_s - span.start_s, 9) for r in load.requests if span.start_s <= r.intended_s < span.end_s]
        for span in (first, second)
    ]
    assert offsets[0] != offsets[1]


def test_phases_have_their_rates() -> None:
    def blank(**arguments: Any) -> Prompt:
        return Prompt("x", int(arguments["tokens"]), exact=False)

    load = plan(sustained_s=400.0, recovery_s=40.0, burst_repeats=20, make_prompt=blank)
    assert load.offered[Phase.SUSTAINED] == pytest.approx(5.0 * 400, rel=0.1)
    assert load.offered[Phase.RECOVERY] == pytest.approx(5.0 * 40 * 20, rel=0.07)
    assert load.offered[Phase.BURST] == pytest.approx(20.0 * 3 * 20, rel=0.12)


def test_prompts_differ_throughout_the_run() -> None:
    load = plan(make_prompt=TextPrompts(encode_words), burst_repeats=2)
    assert len({request.prompt for request in load.requests}) == len(load.requests)
    assert load.prompt_tokens_exact
    assert not plan().prompt_tokens_exact
    for request in load.requests:
        assert isinstance(request.prompt, str)
        assert len(encode_words(request.prompt)) == request.prompt_tokens


def test_prompts_may_be_token_ids() -> None:
    load = plan(make_prompt=TokenIdPrompts(encode_words))
    assert all(isinstance(r.prompt, tuple) and len(r.prompt) == r.prompt_tokens for r in load.requests)


@pytest.mark.parametrize("name", example_names())
def test_every_example_can_be_planned(name: str) -> None:
    profile = parse_requirement(example_text(name), name).profile
    load = plan(profile, make_prompt=TextPrompts(encode_words), warmup_s=1.0, sustained_s=5.0, recovery_s=1.0)
    assert load.offered[Phase.SUSTAINED] > 0
    assert all(request.prompt_tokens <= profile.prompt_tokens.largest for request in load.requests)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed is -1; allowed: a whole number of at least 0"),
        ({"warmup_s": -1.0}, "warmup_s is -1.0; allowed: a duration of at least 0 s"),
        ({"recovery_s": float("nan")}, "recovery_s is nan"),
        ({"sustained_s": 0.0}, "sustained_s is 0; allowed: more than 0 s"),
        ({"burst_repeats": -1}, "burst_repeats is -1; allowed: 0 to 1000"),
        ({"sustained_s": 100_000.0}, "more than 200000 requests: lower the rate or shorten the sustained phase"),
    ],
)
def test_what_cannot_be_planned_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**changes)
