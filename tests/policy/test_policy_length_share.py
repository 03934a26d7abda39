"""The share kept free for long requests: it grows while they are shut out, shrinks while they are not, within its bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.policy.length_share import LEAST, MOST, START, TARGET, LengthShare


def rest(room_for_long: float, *, decisions: int = 6000, seed: int = 0) -> tuple[float, float]:
    """The share on average in a world in which it helps long requests and costs short ones; and what it made of admission.

    Short ones get in with probability 0.5 less half the share, long ones with ``room_for_long`` times the share, at most 1.
    """
    dice = np.random.default_rng(seed)
    length = LengthShare()
    longs, all_, shares = [], [], []
    for number in range(decisions):
        long = bool(dice.random() < 0.25)
        chance = min(1.0, room_for_long * length.share) if long else 0.5 - 0.5 * length.share
        admitted = bool(dice.random() < chance)
        length.decided(10.0 + dice.random() if long else 1.0 + dice.random(), admitted=admitted)
        if number > decisions / 2:
            all_.append(admitted)
            shares.append(length.share)
            if long:
                longs.append(admitted)
    return float(np.mean(shares)), float(np.mean(longs) / np.mean(all_))


@pytest.mark.parametrize("room_for_long", [0.5, 1.0])
def test_long_requests_get_their_part_where_room_helps_them(room_for_long: float) -> None:
    share, relative = rest(room_for_long)
    assert LEAST < share < MOST
    assert relative == pytest.approx(TARGET, abs=0.15)


def test_more_is_kept_where_more_is_needed() -> None:
    assert rest(0.3)[0] > rest(1.0)[0]


def test_without_refusals_nothing_moves() -> None:
    length = LengthShare()
    for work_s in np.random.default_rng(1).random(500).tolist():
        length.decided(work_s, admitted=True)
    assert length.share == START


@given(st.lists(st.tuples(st.floats(0.0, 1e6), st.booleans()), max_size=400))
def test_it_stays_within_its_bounds(decisions: list[tuple[float, bool]]) -> None:
    length = LengthShare()
    for work_s, admitted in decisions:
        length.decided(work_s, admitted=admitted)
    assert LEAST <= length.share <= MOST
