"""Balances, sketches, bounds and context curves: laws that hold whatever the hardware."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_world import CHAT, requirement, serving, shape

from setpoint.hardware.step_time import step_timer
from setpoint.plan.context import context_curve
from setpoint.plan.fluid import answer_s, at_load, balance, capacity, step_s
from setpoint.plan.limits import limits_of
from setpoint.plan.pruning import no_room, too_slow
from setpoint.plan.sketch import sketch_of, without_cache
from setpoint.policy.configuration import BatchingMode
from setpoint.policy.decisions import StepWork
from setpoint.requirement import parse_requirement

H100 = shape("h100-sxm")
TIMER = step_timer(H100.deployment)
LOAD = sketch_of(requirement().profile)


def test_a_sketch_of_constant_lengths_is_those_lengths() -> None:
    assert (LOAD.mean_output, LOAD.mean_uncached, LOAD.mean_context, LOAD.largest_context) == (200, 500, 600, 700)
    assert LOAD.hit_rate == 0


def test_shared_prefixes_and_histories_are_cached() -> None:
    text = CHAT.replace("prompt_tokens: 500", "prompt_tokens: 500\n  shared_prefix_tokens: 100")
    shared = sketch_of(requirement(text).profile)
    assert shared.hit_rate == pytest.approx(0.2)
    assert shared.mean_resident == pytest.approx(500)
    talk = parse_requirement(
        "name: t\nprofile:\n  prompt_tokens: 100\n  output_tokens: 50\n  arrival: {rate: 1/s}\n"
        "  sessions: {turns: 3, added_tokens: 20}\n",
        "file",
    )
    talks = sketch_of(talk.profile)
    assert sorted(set(talks.prompt_tokens.tolist())) == [100, 170, 240]
    assert sorted(set(talks.private_tokens.tolist())) == [0, 150, 220]
    assert talks.mean_resident > talks.mean_uncached


@settings(max_examples=30)
@given(batch=st.floats(1, 400), more=st.floats(1.01, 3))
def test_a_larger_batch_carries_more_in_longer_steps(batch: float, more: float) -> None:
    small, large = balance(TIMER, LOAD, batch), balance(TIMER, LOAD, batch * more)
    assert large.step_s >= small.step_s
    assert large.rate_rps >= small.rate_rps * 0.98


@settings(max_examples=30)
@given(share=st.floats(0.02, 0.98))
def test_the_balance_at_a_load_carries_it(share: float) -> None:
    most = capacity(TIMER, LOAD, serving(), H100.kv_tokens)
    found = at_load(TIMER, LOAD, serving(), H100.kv_tokens, share * most.rate_rps)
    assert found is not None
    assert found.rate_rps == pytest.approx(share * most.rate_rps, rel=0.03)
    assert at_load(TIMER, LOAD, serving(), H100.kv_tokens, 1.01 * most.rate_rps) is None


def test_no_batching_carries_less_than_any_batch() -> None:
    carried = [
        capacity(TIMER, LOAD, serving(mode, running), H100.kv_tokens).rate_rps
        for mode, running in ((BatchingMode.IMMEDIATE, 1), (BatchingMode.STATIC, 8), (BatchingMode.CONTINUOUS, 128))
    ]
    assert carried == sorted(carried)
    assert carried[2] > 5 * carried[0]


def test_shapes_without_room_are_told() -> None:
    assert no_room(H100, LOAD) is None
    found = no_room(shape("l4", "llama-3.1-70b"), LOAD)
    assert found is not None
    assert found.bound == "capacity"
    assert found.excess > 1


def test_a_limit_no_request_keeps_prunes_and_one_it_may_keep_does_not() -> None:
    tight = limits_of(requirement(CHAT, **{"ttft: {p95: 500ms}": "ttft: {p95: 1ms}"}))
    found = too_slow(H100, TIMER, 0.1, LOAD, tight)
    assert found is not None
    assert found.limit is tight[0]
    assert too_slow(H100, TIMER, 0.1, LOAD, limits_of(requirement())) is None
    # Steps that may be far faster than predicted do not prune.
    assert too_slow(H100, TIMER, 5.0, LOAD, tight) is None


def test_latency_is_flat_until_the_cache_is_full_and_then_grows_with_the_context() -> None:
    curve = context_curve(H100, TIMER, LOAD, 32)
    full = curve.bends_at_tokens
    assert full == pytest.approx(H100.kv_tokens / 32)
    before = curve.request_s[curve.contexts < full]
    after = curve.request_s[(curve.contexts > 2 * full) & ~np.isnan(curve.request_s)]
    assert (np.diff(before) >= 0).all()
    assert (np.diff(after) > 0).all()
    slope_before = (before[-1] / before[0]) / (full / curve.contexts[0])
    assert slope_before < 0.5
    assert after[0] > 1.5 * before[-1]


def test_more_memory_bends_later() -> None:
    larger = shape("mi300x")
    curves = [context_curve(each, step_timer(each.deployment), LOAD, 32) for each in (H100, larger)]
    assert curves[1].bends_at_tokens > 2 * curves[0].bends_at_tokens


def test_an_answer_takes_its_prompt_and_a_step_for_each_token() -> None:
    found = balance(TIMER, LOAD, 8.0)
    prompt_s = step_s(TIMER, StepWork(500, 1, 500, 125_000))
    assert answer_s(TIMER, LOAD, found) == pytest.approx(prompt_s + 200 * found.step_s)


def test_without_a_cache_nothing_is_found_again() -> None:
    text = CHAT.replace("prompt_tokens: 500", "prompt_tokens: 500\n  shared_prefix_tokens: 100\n  prefix_groups: 7")
    shared = sketch_of(requirement(text).profile)
    assert (shared.prefix_groups, without_cache(shared).prefix_groups) == (7, 1)
    assert without_cache(shared).hit_rate == 0
    assert without_cache(shared).mean_resident == pytest.approx(600)
