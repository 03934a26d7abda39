"""What a change is found to have done."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.loop.adapt.effect import KEPT_OUTCOMES, LOOKS, Outcomes, Prediction, Share, Verdict, verdict

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


def test_looks_are_few_and_err_together_about_as_often_as_one_may() -> None:
    """Equal shares, judged at each look: either side is said to be better in 5 % of trials, not in several times as many."""
    dice = np.random.default_rng(0)
    wrong = 0
    for _ in range(2000):
        before = Share(int(dice.binomial(120, 0.7)), 120)
        good = np.cumsum(dice.binomial(24, 0.7, size=LOOKS))
        after = [Share(int(each), 24 * (at + 1)) for at, each in enumerate(good)]
        looks = [verdict(before, each, PREDICTED, time_is_up=False, least=20) for each in after]
        wrong += next((each for each in looks if each is not None), None) is Verdict.HARMED
    assert wrong <= 0.06 * 2000


def test_without_requests_before_a_change_nothing_is_said_of_it() -> None:
    assert verdict(Share(0, 0), Share(5, 40), PREDICTED, time_is_up=False, least=20) is None
    assert verdict(Share(0, 0), Share(5, 40), PREDICTED, time_is_up=True, least=20) is Verdict.UNMEASURED


def test_long_answers_do_not_make_the_newest_requests_look_worse_than_they_are() -> None:
    """Four of five are good; late ones are known at once, good ones end after 20 s: those under way count as well."""
    outcomes = Outcomes()
    for moment in range(40):
        if moment < 20:
            outcomes.add(float(moment), moment % 5 != 0)
    outcomes.under_way = tuple((float(moment), moment % 5 != 0) for moment in range(20, 40))
    assert outcomes.between(0.0, 40.0) == Share(32, 40)
    outcomes.forget(10.0)
    assert outcomes.between(0.0, 20.0) == Share(8, 10)
