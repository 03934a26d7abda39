"""Room for other tenants: kept by who takes more than its share, never by others, and within bounds."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.policy.forecast import Machine
from setpoint.policy.tenant_room import FACTOR, ISOLATION, MOST_TENANTS, RECENT_S, Others, TenantRoom

SMALL, LARGE = 1, 2
PROMPT = 90


def ten_to_one(room: TenantRoom, *, until_s: float = 20.0) -> None:
    """The large tenant sends ten times as much, and as much of it is admitted."""
    for number in range(int(until_s * 11)):
        tenant = SMALL if number % 11 == 0 else LARGE
        room.asked(tenant, number / 11, 1.0, PROMPT)
        room.admitted(tenant, 1.0)


def test_who_takes_more_than_its_share_leaves_room_and_nobody_else() -> None:
    room = TenantRoom()
    ten_to_one(room)
    found = room.of(LARGE, 20.0)
    assert found is not None
    assert found.strength == pytest.approx(min(1.0, FACTOR / 11), rel=0.1)
    assert found.prompt_tokens == PROMPT
    assert room.of(SMALL, 20.0) is None


def test_nobody_is_kept_out_of_a_machine_that_can_serve_all_that_comes() -> None:
    """Seen by reading: a tenant with nine tenths of half the knee was refused for the sake of one that sent the rest."""
    machine = Machine(0.01, 1e-4, 1e-3, inf, floor_tokens=8, budget_tokens=512)
    room = TenantRoom()
    for load, most_s in ((0.3, inf), (2.0, ISOLATION)):
        for number in range(440):
            tenant = SMALL if number % 11 == 0 else LARGE
            room.asked(tenant, number / 11, load / 11, PROMPT)
            room.admitted(tenant, load / 11)
        found = room.of(LARGE, 40.0)
        assert found is not None
        assert found.offered_share == pytest.approx(load, rel=0.1)
        assert found.most_s(machine) == pytest.approx(most_s * found.alone_s(machine) / found.strength)
        room = TenantRoom()


def test_nobody_leaves_room_for_who_has_gone() -> None:
    room = TenantRoom()
    ten_to_one(room)
    room.asked(LARGE, 20.0 + 2 * RECENT_S, 1.0, PROMPT)
    assert room.of(LARGE, 20.0 + 2 * RECENT_S) is None


def test_a_tenant_alone_and_an_unknown_one_have_all() -> None:
    room = TenantRoom()
    assert room.of(LARGE, 0.0) is None
    for number in range(50):
        room.asked(LARGE, float(number), 1.0, PROMPT)
        room.admitted(LARGE, 1.0)
    assert room.of(LARGE, 50.0) is None
    assert room.of(SMALL, 50.0) is None


def test_equal_tenants_do_not_hinder_each_other_for_long() -> None:
    """Whoever is just ahead leaves room; the other, behind, leaves none."""
    room = TenantRoom()
    for number in range(100):
        tenant = SMALL if number % 2 else LARGE
        room.asked(tenant, number / 10, 1.0, PROMPT)
        room.admitted(tenant, 1.0)
    found = [each for each in (room.of(SMALL, 10.0), room.of(LARGE, 10.0)) if each is not None]
    assert len(found) <= 1
    assert all(each.strength < 0.1 for each in found), "being just ahead costs next to nothing"


@given(
    st.lists(st.tuples(st.integers(0, 2 * MOST_TENANTS), st.floats(0, 100), st.floats(0, 1e3), st.booleans()), max_size=300),
)
def test_it_stays_within_bounds_and_remembers_a_bounded_number(events: list[tuple[int, float, float, bool]]) -> None:
    room = TenantRoom()
    for tenant, at_s, work_s, admitted in sorted(events, key=lambda event: event[1]):
        room.asked(tenant, at_s, work_s, PROMPT)
        found = room.of(tenant, at_s)
        assert found is None or 0.0 < found.strength <= 1.0
        if admitted:
            room.admitted(tenant, work_s)
    assert len(room._flows) <= MOST_TENANTS


@given(
    st.floats(1e-3, 0.1), st.floats(1e-5, 5e-3), st.floats(1e-5, 1e-2), st.one_of(st.just(inf), st.floats(0.01, 1.0)),
    st.floats(1, 4000), st.floats(0.01, 1.0),
)  # fmt: skip
def test_others_wait_longer_the_more_answers_are_under_way(
    base_s: float, token_s: float, sequence_s: float, allowed_s: float, prompt_tokens: float, strength: float
) -> None:
    machine = Machine(base_s, token_s, sequence_s, allowed_s, floor_tokens=8, budget_tokens=512)
    others = Others(prompt_tokens, strength)
    waits_s = [others.beside_s(machine, decodes) for decodes in range(1, 40)]
    assert waits_s == sorted(waits_s)
    assert waits_s[0] > prompt_tokens * token_s
    assert others.most_s(machine) >= ISOLATION * others.alone_s(machine)


def test_who_is_far_over_its_share_goes_behind_and_comes_back() -> None:
    room = TenantRoom()
    ten_to_one(room)
    assert room.far_over(20.0) == {LARGE}
    for number in range(100):
        room.asked(LARGE if number % 2 else SMALL, 20.0 + number / 4, 1.0, PROMPT)
        room.admitted(SMALL, 1.0)
    assert room.far_over(45.0) == frozenset()
