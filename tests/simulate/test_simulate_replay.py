"""A workload through the real step loop on a virtual clock: deterministic, complete, and true to what it is given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import StepWork
from setpoint.policy.modes import build_policy
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import RequestLimits
from setpoint.simulate.admit_all import AdmitAll
from setpoint.simulate.machine import MeasuredSteps, fitted_machine
from setpoint.simulate.replay import Arrival, Replayed, World, replay

LIMITS = RequestLimits(ttft_s=0.5, itl_s=0.06)
SETPOINT = ServingConfig(mode=BatchingMode.SETPOINT, max_running=8, token_budget=256)


def step_s(work: StepWork, now_s: float) -> float:
    """A machine that is twice as slow in the third second."""
    return (8e-3 + 3e-4 * work.tokens + 5e-4 * work.sequences) * (2.0 if 2.0 <= now_s < 3.0 else 1.0)


WORLD = World(step_s, blocks=256, between_s=1e-3)


def poisson(rate_rps: float, duration_s: float, *, seed: int = 0, cached: int = 0) -> list[Arrival]:
    dice = np.random.default_rng(seed)
    times = np.cumsum(dice.exponential(1 / rate_rps, size=int(2 * rate_rps * duration_s)))
    return [
        Arrival(f"r{n}", float(at_s), int(dice.integers(40, 160)), int(dice.integers(5, 40)), 64, cached, limits=LIMITS)
        for n, at_s in enumerate(times[times < duration_s])
    ]


def run(arrivals: list[Arrival], config: ServingConfig = SETPOINT, *, until_s: float = 1e6, admission: bool = True) -> Replayed:
    model = StepTimeModel()
    policy = build_policy(config, model)
    return replay(arrivals, policy if admission else AdmitAll(policy), WORLD, until_s=until_s, model=model)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.sampled_from(BatchingMode), st.floats(2, 40))
def test_every_arrival_ends_once_with_the_length_it_was_given(seed: int, mode: BatchingMode, rate_rps: float) -> None:
    arrivals = poisson(rate_rps, 2.0, seed=seed)
    played = run(arrivals, SETPOINT.model_copy(update={"mode": mode}))
    assert played.whole
    assert [outcome.arrival for outcome in played.outcomes] == arrivals
    for outcome in played.outcomes:
        assert outcome.end_s is not None
        if outcome.finish == "stop":
            assert len(outcome.token_times_s) == outcome.arrival.output_tokens
            assert outcome.token_times_s == sorted(outcome.token_times_s)
            assert outcome.arrival.at_s <= (outcome.joined_s or 0.0) < outcome.token_times_s[0]
        else:
            assert bool(outcome.refused) != (outcome.finish == "shed")
    assert len(played.moments_s) == played.steps.total == len(played.waiting) == len(played.running)


def test_the_same_input_gives_the_same_run() -> None:
    first, second = (run(poisson(25, 3.0)) for _ in range(2))
    assert first.outcomes == second.outcomes
    assert first.moments_s == second.moments_s


def test_without_admission_everybody_waits_and_the_queue_is_longer() -> None:
    arrivals = poisson(40, 4.0)
    with_it, without = run(arrivals), run(arrivals, admission=False)
    assert any(outcome.refused for outcome in with_it.outcomes)
    assert not any(outcome.refused for outcome in without.outcomes)
    assert max(without.waiting) > max(with_it.waiting)
    assert any(outcome.finish == "shed" for outcome in without.outcomes)  # the rest of the policy still works


def test_it_ends_when_told_and_keeps_what_was_under_way() -> None:
    played = run(poisson(40, 4.0), until_s=2.0)
    assert played.whole
    assert any(outcome.end_s is None and outcome.token_times_s for outcome in played.outcomes)
    assert max(played.moments_s) < 2.5
    short = replay(poisson(5, 1.0), build_policy(SETPOINT), WORLD, until_s=1e6, most_rounds=3)
    assert not short.whole


def test_cached_prompts_are_found_cached() -> None:
    played = run(poisson(3, 4.0, cached=32))
    assert {outcome.cached_tokens for outcome in played.outcomes if outcome.finish == "stop"} == {32}
    cold = run(poisson(3, 4.0))
    assert {outcome.cached_tokens for outcome in cold.outcomes if outcome.finish == "stop"} == {0}


def test_arrivals_out_of_order_are_an_error() -> None:
    first, second, *_ = poisson(5, 2.0)
    with pytest.raises(ValueError, match="in order of time"):
        run([second, first])


def measured(played: Replayed) -> MeasuredSteps:
    columns, _ = played.steps.columns(0)
    names = (
        "start_s",
        "end_s",
        "prefill_tokens",
        "decode_tokens",
        "sequences",
        "kv_tokens_read",
        "attention_products",
        "running",
    )
    return MeasuredSteps(**{name: np.array(columns[name], dtype=np.float64) for name in names})


def test_a_fitted_machine_takes_as_long_as_the_measured_one_at_every_moment() -> None:
    steps = measured(run(poisson(10, 5.0)))
    machine = fitted_machine(steps)
    assert machine.between_s == pytest.approx(1e-3)
    for place in range(len(steps)):
        took_s = steps.end_s[place] - steps.start_s[place]
        assert machine.step_s(steps.work(place), float(steps.start_s[place])) == pytest.approx(took_s)


def test_a_run_replayed_on_its_fitted_machine_comes_out_the_same() -> None:
    arrivals = poisson(20, 6.0)
    first = run(arrivals)
    machine = fitted_machine(measured(first))
    world = replace(WORLD, step_s=machine.step_s, between_s=machine.between_s)
    second = replay(arrivals, build_policy(SETPOINT, StepTimeModel()), world, until_s=1e6)
    same = [bool(a.refused) == bool(b.refused) for a, b in zip(first.outcomes, second.outcomes, strict=True)]
    assert np.mean(same) > 0.95
    served = [(a, b) for a, b in zip(first.outcomes, second.outcomes, strict=True) if a.token_times_s and b.token_times_s]
    differences = [abs(a.token_times_s[0] - b.token_times_s[0]) for a, b in served]
    assert np.median(differences) < 0.02


def test_a_machine_of_no_steps_follows_its_prior() -> None:
    nothing = np.zeros(0)
    machine = fitted_machine(MeasuredSteps(*[nothing] * 8))
    assert machine.step_s(StepWork(1, 1, 1, 1), 5.0) > 0
    assert machine.between_s == 0.0
