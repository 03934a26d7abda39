"""What drafting takes: whether its parts can be told apart, and what a step teaches of them."""

from __future__ import annotations

import pytest

from setpoint.policy.decisions import StepResult, StepWork
from setpoint.policy.verify_time import DraftTime

ROUND_S, TOKEN_S, READ_S = 1e-3, 1e-4, 5e-6
WORK = StepWork(1, 1, 1, 1)


def taught(*steps: tuple[int, int, int]) -> DraftTime:
    """Drafting of so many rounds, drafted and read tokens, one after the other."""
    timing = DraftTime()
    for rounds, drafted, read in steps:
        timing.observe(rounds, drafted, read, ROUND_S * rounds + TOKEN_S * drafted + READ_S * read)
    return timing


WARM_UP = [(1, count, 95 * count) for count in (1, 2, 4)] + [(4, 4 * count, 2 * count) for count in (1, 2, 4, 8, 16) * 3]


def test_a_warm_up_tells_a_round_a_guess_and_reading_apart() -> None:
    assert taught(*WARM_UP).told_s == pytest.approx((ROUND_S, TOKEN_S, READ_S), rel=0.15)


@pytest.mark.parametrize("alike", [(4, 32, 8), (3, 3, 1), (4, 16, 0)])
def test_steps_that_are_all_alike_tell_nothing(alike: tuple[int, int, int]) -> None:
    assert taught().told_s is None
    assert taught(*[alike] * 300).told_s is None
    assert taught(*WARM_UP, *[alike] * 600).told_s is None, "the warm-up is forgotten by then"


def test_a_step_teaches_its_rounds_its_drafts_and_what_was_read_for_them() -> None:
    """Who was only read for has no draft, and the pass that reads is a round."""
    found, wanted = DraftTime(), DraftTime()
    behind = {1: 3, 2: 128, 3: 9}
    found.learn(StepResult(0.0, 1.0, WORK, {}, drafted={1: 4, 3: 2}, draft_s=5e-3), behind, (2,))
    wanted.observe(4, 6, 140, 5e-3)
    found.learn(StepResult(1.0, 2.0, WORK, {}, draft_s=2e-3), behind, (2,))
    wanted.observe(1, 0, 128, 2e-3)
    assert found.coefficients_s == wanted.coefficients_s
