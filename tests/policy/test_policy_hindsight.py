"""What chosen drafts turn out to be worth, and how often they change the shape of a step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.policy.hindsight import PRIOR_CHANGES, Hindsight, ShapeChanges


def test_what_was_not_seen_counts_as_right() -> None:
    hindsight = Hindsight()
    hindsight.learn(8, expected=40.0, came=10.0)
    assert hindsight.share(1) == 1.0
    assert hindsight.share(8) < 0.5
    assert hindsight.share(9) == hindsight.share(8), "batches of like size are judged together"


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0.0, 15.0), st.floats(0.0, 1.0)), max_size=60))
def test_a_share_is_above_0_and_never_above_1(drafts: list[tuple[int, float, float]]) -> None:
    hindsight = Hindsight()
    for requests, expected, part in drafts:
        hindsight.learn(requests, expected=expected, came=expected * part)
    assert all(0.0 < hindsight.share(requests) <= 1.0 for requests in range(1, 65))


@pytest.mark.parametrize("true", [0.3, 0.6, 0.9])
def test_it_comes_to_the_share_that_is_true(true: float) -> None:
    hindsight = Hindsight()
    for _ in range(400):
        hindsight.learn(4, expected=1.0, came=true)
    assert hindsight.share(4) == pytest.approx(true, abs=0.05)


def test_the_best_of_many_estimates_is_found_to_be_worth_less() -> None:
    """Every draft stands with chance 0.5; the largest of 16 estimates from three tries each says far more."""
    dice = np.random.default_rng(1)
    hindsight = Hindsight()
    promised = []
    for _ in range(300):
        best = (dice.binomial(3, 0.5, size=16) / 3).max()
        promised.append(best)
        hindsight.learn(16, expected=best, came=float(dice.random() < 0.5))
    assert np.mean(promised) > 0.85
    assert hindsight.share(16) * np.mean(promised) == pytest.approx(0.5, abs=0.1)


def test_alike_steps_with_drafts_change_nothing() -> None:
    changes = ShapeChanges()
    for _ in range(200):
        changes.saw(5, drafted=True)
    assert changes.each < 0.1


def test_a_step_with_drafts_between_steps_without_changes_the_shape_twice() -> None:
    changes = ShapeChanges()
    for _ in range(100):
        changes.saw(1, drafted=False)
        changes.saw(5, drafted=True)
    assert changes.each == pytest.approx(2.0, abs=0.1)


def test_steps_without_drafts_say_nothing() -> None:
    changes = ShapeChanges()
    for tokens in range(1, 50):
        changes.saw(tokens, drafted=False)
    assert changes.each == pytest.approx(PRIOR_CHANGES)
