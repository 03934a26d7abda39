"""What a change is found to have done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.loop.adapt.effect import KEPT_OUTCOMES, Outcomes, Prediction, Share, Verdict, verdict

PREDICTED = Prediction(present=0.5, good=0.9, gain=0.4, uncertainty=0.1)


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (Share(10, 40), Share(38, 40), Verdict.HELPED),
        (Share(38, 40), Share(10, 40), Verdict.HARMED),
        (Share(20, 40), Share(21, 40), Verdict.DID_NOT_HELP),
        (Share(3, 4), Share(33, 40), Verdict.HELPED),  # as good as predicted, from what looked good before
        (Share(20, 40), Share(3, 3), Verdict.UNMEASURED),
    ],
)
def test_shares_before_and_after_are_held_against_each_other_and_the_prediction(
    before: Share, after: Share, wanted: Verdict
) -> None:
    assert verdict(before, after, PREDICTED, time_is_up=True, least=20) is wanted
    early = verdict(before, after, PREDICTED, time_is_up=False, least=20)
    assert early is (wanted if wanted in (Verdict.HELPED, Verdict.HARMED) and before.requests > 4 else None)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(20, 60), st.booleans())
def test_an_equal_or_better_share_is_never_harm_and_a_worse_one_never_help(good: int, less: int, of: int, up: bool) -> None:
    higher, lower = Share(min(of, max(good, less)), of), Share(min(of, good, less), of)
    assert verdict(lower, higher, PREDICTED, time_is_up=up, least=20) is not Verdict.HARMED
    found = verdict(higher, lower, PREDICTED, time_is_up=False, least=20)
    assert found is not Verdict.HELPED


def test_what_rolls_back() -> None:
    assert {each for each in Verdict if each.rolls_back} == {Verdict.DID_NOT_HELP, Verdict.HARMED}


def test_outcomes_are_of_the_requests_that_came_in_a_time_and_bounded() -> None:
    outcomes = Outcomes()
    for moment in range(2 * KEPT_OUTCOMES):
        outcomes.add(float(moment), moment % 2 == 0)
    assert outcomes.between(0.0, 2.0 * KEPT_OUTCOMES) == Share(KEPT_OUTCOMES // 2, KEPT_OUTCOMES)
    assert outcomes.between(KEPT_OUTCOMES, KEPT_OUTCOMES + 10) == Share(5, 10)
    assert outcomes.between(-2.0, -1.0).value == 1.0
