"""Room for other tenants: kept by who takes more than its share, never by others, and within bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.policy.tenant_room import FACTOR, MOST, MOST_TENANTS, RECENT_S, TenantRoom

SMALL, LARGE = 1, 2


def ten_to_one(room: TenantRoom, *, until_s: float = 20.0) -> None:
    """The large tenant sends ten times as much, and as much of it is admitted."""
    for number in range(int(until_s * 11)):
        tenant = SMALL if number % 11 == 0 else LARGE
        room.asked(tenant, number / 11, 1.0)
        room.admitted(tenant, 1.0)


def test_who_takes_more_than_its_share_leaves_room_and_nobody_else() -> None:
    room = TenantRoom()
    ten_to_one(room)
    assert room.of(LARGE, 20.0) == pytest.approx(min(MOST, FACTOR / 11), rel=0.1)
    assert room.of(SMALL, 20.0) == 0.0


def test_nobody_leaves_room_for_who_has_gone() -> None:
    room = TenantRoom()
    ten_to_one(room)
    room.asked(LARGE, 20.0 + 2 * RECENT_S, 1.0)
    assert room.of(LARGE, 20.0 + 2 * RECENT_S) == 0.0


def test_a_tenant_alone_and_an_unknown_one_have_all() -> None:
    room = TenantRoom()
    assert room.of(LARGE, 0.0) == 0.0
    for number in range(50):
        room.asked(LARGE, float(number), 1.0)
        room.admitted(LARGE, 1.0)
    assert room.of(LARGE, 50.0) == 0.0
    assert room.of(SMALL, 50.0) == 0.0


def test_equal_tenants_do_not_hinder_each_other_for_long() -> None:
    """Whoever is just ahead leaves room; the other, behind, leaves none."""
    room = TenantRoom()
    for number in range(100):
        tenant = SMALL if number % 2 else LARGE
        room.asked(tenant, number / 10, 1.0)
        room.admitted(tenant, 1.0)
    assert min(room.of(SMALL, 10.0), room.of(LARGE, 10.0)) == 0.0
    assert max(room.of(SMALL, 10.0), room.of(LARGE, 10.0)) < 0.1 * MOST, "being just ahead costs next to nothing"


@given(
    st.lists(st.tuples(st.integers(0, 2 * MOST_TENANTS), st.floats(0, 100), st.floats(0, 1e3), st.booleans()), max_size=300),
)
def test_it_stays_within_bounds_and_remembers_a_bounded_number(events: list[tuple[int, float, float, bool]]) -> None:
    room = TenantRoom()
    for tenant, at_s, work_s, admitted in sorted(events, key=lambda event: event[1]):
        room.asked(tenant, at_s, work_s)
        assert 0.0 <= room.of(tenant, at_s) <= MOST
        if admitted:
            room.admitted(tenant, work_s)
    assert len(room._flows) <= MOST_TENANTS
