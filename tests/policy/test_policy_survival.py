"""Survival profiles against their closed forms, and learned survivals against what they were taught."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.policy.survival import (
    SurvivalProfile,
    Survivals,
    break_even_acceptance,
    constant_acceptance,
    expected_tokens,
)

acceptances = st.floats(0.0, 1.0)
lengths = st.integers(1, 32)


@given(acceptances, lengths)
def test_the_sum_of_survival_is_the_closed_form(acceptance: float, draft_tokens: int) -> None:
    profile = constant_acceptance(acceptance, draft_tokens)
    assert profile.expected_tokens(draft_tokens) == pytest.approx(expected_tokens(acceptance, draft_tokens))
    assert profile.expected_tokens(0) == 1.0


@given(lengths, st.floats(1e-3, 10.0), st.floats(1.0, 40.0), st.floats(0.0, 5.0))
def test_at_the_break_even_acceptance_nothing_is_gained(draft_tokens: int, step_s: float, verify: float, draft: float) -> None:
    costs = {"step_s": step_s, "verify_s": verify * step_s, "draft_s": draft * step_s}
    acceptance = break_even_acceptance(draft_tokens, **costs)
    if acceptance is None:
        assert constant_acceptance(1.0, draft_tokens).speed_up(draft_tokens, **costs) < 1.0 + 1e-9
    elif acceptance > 0.0:
        assert constant_acceptance(acceptance, draft_tokens).speed_up(draft_tokens, **costs) == pytest.approx(1.0)


def test_break_even_by_hand() -> None:
    """One draft token: 1 + a = ratio."""
    assert break_even_acceptance(1, step_s=1.0, verify_s=1.2, draft_s=0.3) == pytest.approx(0.5)
    assert break_even_acceptance(1, step_s=1.0, verify_s=0.5, draft_s=0.5) == 0.0
    assert break_even_acceptance(4, step_s=1.0, verify_s=5.1, draft_s=0.0) is None


@pytest.mark.parametrize("survival", [(0.5, 0.6), (1.1,), (0.3, -0.1)])
def test_a_survival_that_rises_or_is_no_share_is_refused(survival: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="survival must fall"):
        SurvivalProfile(survival)


def test_positions_beyond_the_profile_are_not_made_up() -> None:
    with pytest.raises(ValueError, match="knows 2 positions"):
        SurvivalProfile((0.5, 0.2)).expected_tokens(3)


def ids(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 9)), max_size=60))
def test_whatever_is_learned_survival_falls_with_position(seen: list[tuple[int, int, int]]) -> None:
    survivals = Survivals(6)
    for kind, drafted, accepted in seen:
        survivals.predict(ids(1), ids(kind))
        survivals.observe(1, drafted, accepted)
    found = survivals.predict(ids(1, 2), ids(0, 3))
    assert found.shape == (2, 6)
    assert ((found > 0) & (found <= 1)).all()
    assert (np.diff(found, axis=1) <= 0).all()


def test_a_request_departs_from_its_class_and_the_class_follows() -> None:
    survivals = Survivals(4)
    before = survivals.predict(ids(1), ids(0))[0]
    for _ in range(40):
        survivals.predict(ids(1), ids(0))
        survivals.observe(1, 4, 4)
    own, other = survivals.predict(ids(1, 2), ids(0, 0))
    assert own[3] > 0.8
    assert own[3] > other[3] > before[3]
    for _ in range(40):
        survivals.predict(ids(2), ids(0))
        survivals.observe(2, 4, 0)
    one, two = survivals.predict(ids(1, 2), ids(0, 0))
    assert one[0] > 0.8 > 0.2 > two[0]
    # Another class of sureness was not spoken of.
    assert survivals.predict(ids(3), ids(3))[0][0] == pytest.approx(0.85)


def test_short_drafts_that_stand_promise_long_ones() -> None:
    """Nothing beyond the second position was ever tried."""
    survivals = Survivals(8)
    before = survivals.predict(ids(1), ids(1))[0]
    for _ in range(12):
        survivals.predict(ids(1), ids(1))
        survivals.observe(1, 2, 2)
    assert survivals.predict(ids(1), ids(1))[0][7] > 0.4 > before[7]


def test_requests_that_are_gone_are_forgotten() -> None:
    survivals = Survivals(2)
    for number in range(1000):
        survivals.predict(ids(number), ids(0))
        survivals.observe(number, 1, 1)
        survivals.keep_only([number])
    assert len(survivals._own) < 20
