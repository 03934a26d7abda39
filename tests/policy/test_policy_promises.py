"""The ledger of promises: spaced by the room there is, kept for those who come back, bounded, forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.policy.promises import (
    GRACE_S,
    MOST_PROMISES,
    MOST_WAIT_S,
    REMEMBER_S,
    WINDOW_S,
    Capacity,
    FreshLoad,
    Promises,
)


def promise(ledger: Promises, fingerprint: int, now_s: float = 0.0, *, after_s: float = 1.0, work_s: float = 0.1) -> float:
    return ledger.promise(fingerprint, now_s, after_s=after_s, tokens=10, output_tokens=5, work_s=work_s)


def test_promises_are_spaced_by_the_room_that_is_left() -> None:
    ledger = Promises()
    ledger.capacity.full_step(0.8, 1.0)
    for window in range(10):
        ledger.fresh.let_in(window * WINDOW_S, 0.6 * WINDOW_S)
    assert ledger.fresh.rate == pytest.approx(0.6)
    assert promise(ledger, 1, 20.0) == pytest.approx(21.0 + 0.1 / 0.2)
    assert promise(ledger, 2, 20.0) == pytest.approx(21.0 + 2 * 0.1 / 0.2)


def test_a_burst_does_not_pass_for_the_load_that_lasts() -> None:
    load = FreshLoad()
    for window in range(20):
        load.let_in(window * WINDOW_S, (3.0 if window > 14 else 0.5) * WINDOW_S)
    assert load.rate == pytest.approx(0.5)


def test_windows_end_without_anybody_let_in() -> None:
    load = FreshLoad()
    for window in range(20):
        load.let_in(window * WINDOW_S, 0.5 * WINDOW_S)
    assert load.rate == pytest.approx(0.5)
    load.until(60 * WINDOW_S)
    assert load.rate == 0


def test_capacity_is_what_was_done_when_full() -> None:
    capacity = Capacity()
    assert 0 < capacity.rate < 1
    for _ in range(1000):
        capacity.full_step(0.03, 0.05)
    assert capacity.rate == pytest.approx(0.6)


def test_refusals_while_the_machine_is_not_full_do_not_make_capacity_less() -> None:
    """A fresh request is refused for the sake of a promise while steps are small: such seconds are not what it can do."""
    capacity = Capacity()
    for step in range(400):
        capacity.full_step(0.03 if step % 80 < 20 else 0.015, 0.05)
    assert capacity.rate == pytest.approx(0.6)


def test_capacity_follows_a_machine_that_became_slower() -> None:
    capacity = Capacity()
    for wall_s in (0.05, 0.1):
        for _ in range(600):
            capacity.full_step(0.03, wall_s)
    assert capacity.rate == pytest.approx(0.3)


def test_a_promise_is_known_again_until_it_is_kept_or_forgotten() -> None:
    ledger = Promises()
    due_s = promise(ledger, 7)
    found = ledger.returned(7, due_s)
    assert found is not None
    assert found.due_s == due_s
    assert ledger.returned(8, due_s) is None
    ledger.kept(7)
    assert ledger.returned(7, due_s) is None
    later_s = promise(ledger, 9, due_s)
    assert ledger.returned(9, later_s + REMEMBER_S + 1) is None
    assert ledger.honoured_share < 1


def test_fresh_requests_see_what_falls_due_before_their_end() -> None:
    ledger = Promises()
    due_s = promise(ledger, 1)
    assert ledger.due_before(0.0, due_s - 0.01) == []
    assert len(ledger.due_before(0.0, due_s)) == 1
    assert len(ledger.due_before(due_s + GRACE_S - 0.01, due_s + GRACE_S + 1)) == 1
    assert ledger.due_before(due_s + GRACE_S + 0.01, due_s + 99) == []


@given(st.lists(st.tuples(st.floats(0, 0.05), st.floats(0, 10)), max_size=60))
def test_due_times_never_go_back_while_nobody_has_come(asked: list[tuple[float, float]]) -> None:
    ledger, now_s, last_s = Promises(), 0.0, 0.0
    for number, (pause_s, work_s) in enumerate(asked):
        now_s += pause_s
        due_s = promise(ledger, number + 1, now_s, after_s=5.0, work_s=work_s)
        assert due_s >= min(last_s, now_s + MOST_WAIT_S) - 1e-9
        last_s = due_s


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 500), st.floats(0, 10), st.booleans()), max_size=60))
def test_waits_have_a_bound_and_what_is_owed_is_what_may_still_come(
    asked: list[tuple[float, float, float, bool]],
) -> None:
    ledger, now_s = Promises(), 0.0
    for number, (pause_s, after_s, work_s, kept) in enumerate(asked):
        now_s += pause_s
        due_s = promise(ledger, number % 20 + 1, now_s, after_s=after_s, work_s=work_s)
        assert now_s < due_s <= now_s + MOST_WAIT_S
        if kept:
            ledger.kept(number % 20 + 1)
        assert ledger._by_due == sorted((each.due_s, name) for name, each in ledger._by_fingerprint.items())
        owed = [ledger._by_fingerprint[name].work_s for _, name in ledger._by_due[ledger._overdue :]]
        assert ledger._owed_s == pytest.approx(sum(owed))


def test_who_is_due_much_later_hides_nobody_and_outlives_nobody() -> None:
    """Seen by reading: the ledger was read in the order of refusal as if that were the order of due times."""
    ledger = Promises()
    far_s = promise(ledger, 1, after_s=100.0)
    near_s = promise(ledger, 2, after_s=0.0, work_s=0.1)
    assert near_s < far_s
    assert len(ledger.due_before(0.0, near_s)) == 1
    ledger.kept(1)
    later_s = near_s + REMEMBER_S + 1.0
    promise(ledger, 3, later_s, work_s=0.1)
    assert list(ledger._by_fingerprint) == [3]
    assert ledger._owed_s == pytest.approx(0.1)


def test_a_promise_for_one_answer_is_none_for_many() -> None:
    ledger = Promises()
    due_s = promise(ledger, 1)
    assert ledger.returned(1, due_s, answers=2) is None
    assert ledger.returned(1, due_s, answers=1) is not None


def test_another_system_has_another_capacity() -> None:
    ledger = Promises()
    for _ in range(100):
        ledger.capacity.full_step(0.1, 1.0)
    ledger.fresh.let_in(0.0, 1.0)
    ledger.restart()
    assert ledger.capacity.rate == Capacity().rate
    assert ledger.fresh.rate == 0.0


def test_clients_who_never_return_do_not_make_the_next_wait() -> None:
    """Seen: after an overload whose clients had gone, a request refused beside one other was told two minutes."""
    ledger = Promises()
    for number in range(200):
        promise(ledger, number + 1, 0.001 * number, work_s=0.5)
    assert promise(ledger, 999, 0.3, work_s=0.5) == pytest.approx(0.3 + MOST_WAIT_S)
    later_s = 0.3 + MOST_WAIT_S + GRACE_S + 1.0
    assert promise(ledger, 1000, later_s, work_s=0.5) <= later_s + 2.5


def test_the_ledger_is_bounded() -> None:
    ledger = Promises()
    for number in range(MOST_PROMISES + 100):
        promise(ledger, number + 1, work_s=0.0)
    assert len(ledger) == MOST_PROMISES
