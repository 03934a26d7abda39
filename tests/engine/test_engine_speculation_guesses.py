"""What is counted of guesses: looks, and by position how often a token was held against what came and stood."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from setpoint.engine.speculation.guesses import GuessCounters


def test_what_is_behind_the_first_wrong_token_was_not_tried() -> None:
    guesses = GuessCounters()
    guesses.verified(3, 1)
    assert (guesses.tried, guesses.stood) == ([1, 1], [1, 0])
    guesses.verified(3, 3)
    assert (guesses.tried, guesses.stood) == ([2, 2, 1], [2, 1, 1])
    guesses.compared(0, False)
    assert (guesses.tried, guesses.stood) == ([3, 2, 1], [2, 1, 1])


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), max_size=20))
def test_no_more_stand_than_were_tried_and_each_that_stood_has_the_next_tried(drafts: list[tuple[int, int]]) -> None:
    guesses = GuessCounters()
    told = [(drafted, min(drafted, accepted)) for drafted, accepted in drafts]
    for drafted, accepted in told:
        guesses.verified(drafted, accepted)
    assert len(guesses.tried) == len(guesses.stood)
    for position, (tried, stood) in enumerate(zip(guesses.tried, guesses.stood, strict=True)):
        assert tried == sum(drafted > position and accepted >= position for drafted, accepted in told)
        assert stood == sum(accepted > position for _, accepted in told)
    assert sum(guesses.stood) == sum(accepted for _, accepted in told)


def test_looks_are_counted_whether_or_not_there_is_a_guess() -> None:
    guesses = GuessCounters()
    guesses.looked_for(4, 0)
    guesses.looked_for(2, 1)
    assert (guesses.looked, guesses.found) == (6, 1)
