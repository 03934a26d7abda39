"""The profile of live traffic, from records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from setpoint.engine.request import FinishReason, RequestStats
from setpoint.loop.adapt.profile import Asked, LiveProfile, asked_in
from setpoint.loop.adapt.replan import REQUESTS, load_of
from setpoint.policy.configuration import ServingConfig
from setpoint.record import Phase
from setpoint.requirement import parse_requirement
from setpoint.simulate.run import SimulatedSystem, simulate
from setpoint.simulate.timing import LineTimer

REQUIREMENT = parse_requirement(
    "name: a\nmodel: m\nprofile: {prompt_tokens: 8, output_tokens: 8, arrival: {rate: 1/s}}\nslo: {ttft: {p95: 1s}}\n", "a"
)


def asked(number: int, *, prompt: int = 100, cached: int = 40, cap: int = 64) -> Asked:
    return Asked(f"r{number}", 0.5 * number, prompt, prompt - cached, cap)


def ended(number: int, output: int, reason: FinishReason = FinishReason.STOP, *, streaming: bool = True) -> RequestStats:
    return RequestStats(f"r{number}", 0.0, 0.0, 0.0, 99.0, 1, 0, output, 0, reason, streaming)


def test_rate_lengths_cache_and_streaming_are_those_of_the_requests_since_then() -> None:
    live = LiveProfile()
    for number in range(100):
        live.asked(asked(number, prompt=100 if number >= 60 else 7, cached=40 if number >= 60 else 0))
        live.ended(ended(number, 10 if number >= 60 else 50, streaming=number % 2 == 0))
    profile = live.since(30.0, 50.0)
    assert profile is not None
    assert len(profile) == 40
    assert profile.rate_rps == 2.0
    assert profile.gap_cv == 0.0
    assert set(profile.prompt_tokens.tolist()) == {100}
    assert set(profile.cached_tokens.tolist()) == {40}
    assert set(profile.output_tokens.tolist()) == {10}
    assert profile.described()["streaming_share"] == 0.5
    assert live.answered_since(30.0) == 40


def test_a_refused_request_that_comes_back_under_its_name_counts_once() -> None:
    live = LiveProfile()
    refused = replace(asked(1), admitted=False)
    assert [live.asked(each) for each in (refused, refused, asked(1), asked(2))] == [True, False, False, True]


def test_requests_that_were_let_in_under_one_name_count_each_and_end_in_order() -> None:
    """Several prompts of one request, or a client that names all its requests alike."""
    live = LiveProfile()
    assert all(live.asked(replace(asked(number), name="same")) for number in range(20))
    for number in range(20):
        live.ended(replace(ended(number, 5 + number), name="same"))
    profile = live.since(0.0, 10.0)
    assert profile is not None
    assert profile.output_tokens.tolist() == list(range(5, 25))


def test_answers_not_known_yet_are_as_long_as_those_of_the_nearest_prompts() -> None:
    live = LiveProfile()
    for number in range(40):
        short = number % 2 == 0
        live.asked(asked(number, prompt=10 + number % 3 if short else 500 + number % 3, cached=0))
        if number < 30:
            live.ended(ended(number, 60 if short else 5))
    profile = live.since(15.0, 20.0)  # only requests without an end
    assert profile is not None
    of_short = profile.prompt_tokens < 100
    assert set(profile.output_tokens[of_short].tolist()) == {60}
    assert set(profile.output_tokens[~of_short].tolist()) == {5}


def test_with_nothing_known_of_answers_they_are_as_long_as_they_may_be_and_a_cut_one_tells_nothing() -> None:
    live = LiveProfile()
    for number in range(20):
        live.asked(asked(number))
        live.ended(ended(number, 3, FinishReason.CANCELLED))
    profile = live.since(0.0, 10.0)
    assert profile is not None
    assert set(profile.output_tokens.tolist()) == {64}
    assert live.since(9.0, 10.0) is None, "too few"


def test_it_remembers_a_bounded_number() -> None:
    live = LiveProfile(most=10)
    for number in range(1000):
        live.asked(asked(number))
    profile = live.since(0.0, 500.0)
    assert profile is not None
    assert len(profile) == 10


def test_requests_are_read_from_decisions_and_early_returns_are_none() -> None:
    facts = {"prompt_tokens": 9.0, "uncached_tokens": 4.0, "cap_tokens": 7.0, "request_class": 0.0}
    columns: dict[str, list[object]] = {
        "kind": ["admit", "join", "reject", "reject"],
        "request_id": ["a", "a", "b", "c"],
        "time_s": [1.0, 1.1, 1.2, 1.3],
        "code": ["fits", "earliest_deadline", "ttft_would_be", "too_early"],
        "operands": [facts, {}, facts, facts],
    }
    assert asked_in(columns) == [Asked("a", 1.0, 9, 4, 7), Asked("b", 1.2, 9, 4, 7, admitted=False)]


def test_a_load_drawn_from_a_profile_has_its_rate_its_lengths_and_its_cached_share() -> None:
    live = LiveProfile()
    dice = np.random.default_rng(0)
    for number in range(200):
        live.asked(asked(number, prompt=64 + int(dice.integers(0, 64)), cached=32))
        live.ended(ended(number, int(dice.integers(1, 64))))
    profile = live.since(0.0, 100.0)
    assert profile is not None
    load = load_of(profile, REQUIREMENT, 4.0, np.random.default_rng(1))
    load.check()
    sustained = next(phase for phase in load.phases if phase.phase is Phase.SUSTAINED)
    assert 0.7 * 4.0 * sustained.end_s < len(load) < 1.3 * 4.0 * sustained.end_s
    assert 0.7 * REQUESTS < len(load) < 1.5 * REQUESTS
    assert abs(load.prompt_tokens.mean() / profile.prompt_tokens.mean() - 1) < 0.1
    assert all(len(load.named(row, 32)) == 1 for row in range(len(load)))
    assert load.kinds[0].limits.ttft_s == 1.0


def test_traffic_that_has_nearly_stopped_is_a_load_too() -> None:
    live = LiveProfile()
    for number in range(20):
        live.asked(asked(number))
        live.ended(ended(number, 8))
    profile = live.since(0.0, 1e7)
    assert profile is not None
    load = load_of(profile, REQUIREMENT, profile.rate_rps, np.random.default_rng(1))
    load.check()
    timer = LineTimer(5e-3, 1e-3)
    done = simulate(load, SimulatedSystem(timer, 64, 32, ServingConfig()))
    assert len(done.load) == len(load) < 20


def test_a_request_that_was_dropped_while_it_waited_and_comes_back_counts_once() -> None:
    live = LiveProfile()
    assert live.asked(asked(1))
    live.ended(ended(1, 0, FinishReason.SHED))
    assert not live.asked(asked(1))
    live.ended(ended(1, 7))
    assert live.asked(asked(1)), "its answer is over: this is another"
