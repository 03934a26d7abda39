"""The step-time model: exact fits, honest about machines it has never seen, unmoved by steps that went wrong."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.policy.decisions import StepWork
from setpoint.policy.step_time import CPU_PRIOR_S, FEATURES, REFIT_EVERY, StepTimeModel, features, non_negative_least_squares

Floats = npt.NDArray[np.float64]

# Seconds a unit of each feature: like the prior, slower, twelve times as fast, and ten times as slow with dear attention.
MACHINES = {
    "prior": CPU_PRIOR_S,
    "slower": (2e-2, 1e-3, 0.0, 1e-6, 0.0),
    "fast": (1e-3, 2e-5, 1e-4, 1e-8, 1e-8),
    "slow": (5e-2, 5e-3, 1e-3, 0.0, 1e-6),
}
seeds = st.integers(0, 2**32 - 1)


def step(decodes: int, prefill: int, context: int) -> StepWork:
    return StepWork(
        decodes + prefill,
        decodes + (prefill > 0),
        decodes * context + prefill,
        decodes * context + prefill * prefill,
    )


def true_s(machine: tuple[float, ...], work: StepWork) -> float:
    return float(np.dot(machine, features(work)))


def taught(
    machine: tuple[float, ...], seed: int, *, noise: float = 0.0, outliers: float = 0.0, steps: int = 512
) -> StepTimeModel:
    """A model after ``steps`` random steps: log-normal noise, and a share of steps that take ten times as long."""
    dice = np.random.default_rng(seed)
    model = StepTimeModel()
    for _ in range(steps):
        work = step(int(dice.integers(1, 33)), int(dice.choice([0, 0, 16, 64, 256])), int(dice.integers(50, 1500)))
        seconds = true_s(machine, work) * float(np.exp(noise * dice.standard_normal()))
        model.observe(work, seconds * (10 if dice.random() < outliers else 1))
    return model


def worst_error(model: StepTimeModel, machine: tuple[float, ...]) -> float:
    """Largest relative error over loads of every kind."""
    loads = [step(d, p, c) for d in (1, 4, 16, 32) for p in (0, 64, 256) for c in (100, 700, 1400)]
    return max(abs(model.predict_s(work) / true_s(machine, work) - 1) for work in loads)


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@given(seed=seeds)
@settings(max_examples=5, deadline=None)
def test_a_machine_is_learned_within_5_percent(machine: tuple[float, ...], seed: int) -> None:
    assert worst_error(taught(machine, seed), machine) < 0.05


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
@given(seed=seeds)
@settings(max_examples=5, deadline=None)
def test_one_step_in_twenty_taking_ten_times_as_long_changes_nothing(machine: tuple[float, ...], seed: int) -> None:
    assert worst_error(taught(machine, seed, outliers=0.05), machine) < 0.08


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_noise_and_outliers_leave_the_middle(seed: int) -> None:
    machine = MACHINES["slower"]
    assert worst_error(taught(machine, seed, noise=0.05, outliers=0.05), machine) < 0.15


def problem(seed: int, size: int) -> tuple[Floats, Floats]:
    dice = np.random.default_rng(seed)
    design = dice.standard_normal((size + 3, size)) + dice.choice([0.0, 1.0])
    return design.T @ design + 1e-3 * np.eye(size), design.T @ dice.standard_normal(size + 3)


@given(seeds, st.integers(1, FEATURES))
@settings(deadline=None)
def test_least_squares_meets_the_optimality_conditions(seed: int, size: int) -> None:
    """Karush, Kuhn and Tucker: feasible, no gain by growing what is zero, no gain by moving what is not."""
    gram, moment = problem(seed, size)
    found = non_negative_least_squares(gram, moment)
    gradient = gram @ found - moment
    scale = 1e-7 * (1 + np.abs(moment).max())
    assert (found >= 0).all()
    assert (gradient >= -scale).all()
    assert np.abs(gradient * found).max() <= scale * (1 + found.max())


@given(seeds, st.integers(1, FEATURES))
@settings(max_examples=30, deadline=None)
def test_least_squares_beats_every_point_tried(seed: int, size: int) -> None:
    gram, moment = problem(seed, size)

    def value(x: Floats) -> float:
        return float(x @ gram @ x / 2 - moment @ x)

    best = value(non_negative_least_squares(gram, moment))
    dice = np.random.default_rng(seed + 1)
    near = non_negative_least_squares(gram, moment) + 0.1 * dice.standard_normal((200, size))
    far = dice.exponential(1.0, (200, size))
    assert min(value(x) for x in np.maximum(np.vstack((near, far)), 0)) >= best - 1e-9


works = st.builds(StepWork, st.integers(0, 4096), st.integers(0, 512), st.integers(0, 10**7), st.integers(0, 10**9))


@given(st.lists(st.tuples(works, st.floats(-1, 100, allow_nan=False)), max_size=60), works, works)
@settings(max_examples=60, deadline=None)
def test_whatever_it_sees_more_work_never_takes_less_time(
    seen: list[tuple[StepWork, float]], work: StepWork, more: StepWork
) -> None:
    model, twin = StepTimeModel(), StepTimeModel()
    for each, seconds in seen:
        model.observe(each, seconds)
        twin.observe(each, seconds)
    assert model.coefficients == twin.coefficients, "the same steps teach the same"
    assert all(np.isfinite(model.coefficients))
    assert min(model.coefficients) >= 0
    both = StepWork(*(a + b for a, b in zip(features(work)[1:], features(more)[1:], strict=True)))  # type: ignore[arg-type]
    assert 0 <= model.predict_s(work) <= model.predict_s(both) + 1e-9


def test_the_prior_until_there_is_something_to_learn_from() -> None:
    model = StepTimeModel()
    work = step(4, 0, 100)
    for _ in range(REFIT_EVERY - 1):
        model.observe(work, 0.5)
    model.observe(StepWork(0, 0, 0, 0), 1.0)
    model.observe(work, 0.0)
    assert (model.coefficients, model.source, model.observations) == (CPU_PRIOR_S, "physics", REFIT_EVERY - 1)
    model.observe(work, 0.5)
    assert model.source == "measured"
    assert model.predict_s(work) == pytest.approx(0.5, rel=0.02)


def test_what_no_step_has_shown_keeps_the_prior_at_this_machines_speed() -> None:
    """One kind of step says how fast the machine is, not how that divides: the prior's shape answers for the rest."""
    model = StepTimeModel()
    for _ in range(REFIT_EVERY):
        model.observe(step(8, 0, 200), 3 * true_s(CPU_PRIOR_S, step(8, 0, 200)))
    assert model.coefficients == pytest.approx([3 * each for each in CPU_PRIOR_S], rel=1e-6)
    blind = StepTimeModel()
    for _ in range(REFIT_EVERY):
        blind.observe(StepWork(8, 8, 0, 0), 2 * true_s(CPU_PRIOR_S, StepWork(8, 8, 0, 0)))
    assert blind.coefficients[3:] == pytest.approx([2 * each for each in CPU_PRIOR_S[3:]], rel=1e-6)


def test_a_machine_that_changes_is_followed() -> None:
    model = taught(MACHINES["prior"], 1)
    dice = np.random.default_rng(2)
    slower = tuple(4 * each for each in MACHINES["prior"])
    for _ in range(1500):
        work = step(int(dice.integers(1, 33)), int(dice.choice([0, 0, 16, 64, 256])), int(dice.integers(50, 1500)))
        model.observe(work, true_s(slower, work))
    assert worst_error(model, slower) < 0.1


@pytest.mark.parametrize("prior_s", [(1.0, 1.0), (-1.0, 0, 0, 0, 0)])
def test_an_impossible_prior_is_refused(prior_s: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="5 non-negative numbers"):
        StepTimeModel(prior_s)


def test_no_prior_at_all_is_fine() -> None:
    model = StepTimeModel([0.0] * FEATURES)
    for number in range(REFIT_EVERY):
        work = step(1 + number % 8, 0, 100)
        model.observe(work, true_s(MACHINES["slower"], work))
    # Every step had another shape than the one before: what a step costs and what the change costs is known in sum only.
    assert model.predict_next_s(step(4, 0, 100)) == pytest.approx(true_s(MACHINES["slower"], step(4, 0, 100)), rel=0.05)


def test_a_new_shape_costs_what_it_was_seen_to_cost() -> None:
    """Seen on a CPU: a step whose number of tokens differs from the last one's takes about 4 ms more."""
    model, dice, last = StepTimeModel(), np.random.default_rng(3), -1
    for _ in range(1500):
        work = step(int(dice.choice([4, 4, 4, 5])), int(dice.choice([0, 0, 0, 64])), 200)
        seconds = true_s(CPU_PRIOR_S, work) + (4e-3 if work.tokens != last else 0.0)
        model.observe(work, seconds * float(np.exp(0.05 * dice.standard_normal())))
        last = work.tokens
    assert model.change_s == pytest.approx(4e-3, rel=0.25)
    error = model.recent_error
    assert error is not None
    assert error.median < 0.08
    assert error.p95 < 0.25


def test_a_machine_that_slows_down_is_followed_between_fits() -> None:
    model = taught(MACHINES["prior"], 1)
    for _ in range(60):
        model.observe(step(8, 0, 300), 1.5 * true_s(MACHINES["prior"], step(8, 0, 300)))
    assert model.predict_s(step(8, 0, 300)) == pytest.approx(1.5 * true_s(MACHINES["prior"], step(8, 0, 300)), rel=0.15)
