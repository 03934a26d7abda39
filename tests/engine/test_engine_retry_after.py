"""``Retry-After`` means something: who comes back when told gets in, and hardly later than an oracle could have arranged."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest
from load_world import CODING, RECOMMENDATION, Client, LoadWorld, Profile, arrivals, setpoint_config

from setpoint.policy.setpoint import SetpointPolicy

PERIOD_S = 60
SLOT_S = 0.25
CASES = [(RECOMMENDATION, 16, 36.0), (CODING, 48, 11.0)]


def bursts(profile: Profile, knee: float, *, duration_s: float, seed: int) -> list[Client]:
    """10 s at 2x the knee in every minute of a steady 0.7x."""
    return arrivals(
        profile,
        lambda t: knee * (2.0 if 20 <= t % PERIOD_S < 30 else 0.7),
        most_rate=2 * knee,
        duration_s=duration_s,
        seed=seed,
    )


def oracle_waits_s(clients: list[Client], capacity: float) -> list[float]:
    """Waits of the refused if each, in turn, had been told the first slot with room for it beside all who were not refused.

    It knows every arrival, before and after. ``capacity``: requests per second that the machine serves when full.
    """
    last_s = max(client.at_s for client in clients)
    room = np.full(int((last_s + 600) / SLOT_S), capacity * SLOT_S)
    for client in clients:
        if not client.reasons:
            room[int(client.at_s / SLOT_S)] -= 1
    for slot in range(len(room) - 1):  # what a slot could not take is work of the next
        room[slot + 1] += min(0.0, room[slot])
        room[slot] = max(0.0, room[slot])
    waits = []
    for client in clients:
        if client.reasons:
            slot, need = int(client.at_s / SLOT_S) + 1, 1.0
            while need > 1e-9:
                share = min(need, room[slot])
                room[slot] -= share
                need -= share
                slot += 1
            waits.append(slot * SLOT_S - client.at_s)
    return waits


def full_rate(profile: Profile, knee: float, places: int) -> float:
    """Requests per second served under 4x the knee."""
    clients = arrivals(profile, lambda _: 4 * knee, most_rate=4 * knee, duration_s=20, seed=9)
    LoadWorld(setpoint_config(places), seed=9).run(clients)
    return sum(client.admitted_s is not None for client in clients if client.at_s > 5) / 15


@pytest.mark.parametrize(("profile", "places", "knee"), CASES, ids=["recommendation", "coding"])
def test_who_comes_back_when_told_gets_in_hardly_later_than_by_an_oracle(profile: Profile, places: int, knee: float) -> None:
    clients = bursts(profile, knee, duration_s=120, seed=5)
    LoadWorld(setpoint_config(places), seed=5).run(clients, retries=20)
    refused = [client for client in clients if client.reasons]
    assert len(refused) > 50
    at_first_retry = [client for client in refused if len(client.reasons) == 1 and client.admitted_s is not None]
    assert len(at_first_retry) >= 0.9 * len(refused)
    waits = [client.admitted_s - client.at_s for client in refused if client.admitted_s is not None]
    assert len(waits) == len(refused)
    assert np.median(waits) <= 1.5 * np.median(oracle_waits_s(clients, full_rate(profile, knee, places)))
    admitted = [client for client in clients if client.admitted_s is not None]
    assert sum(not client.good(retried=True) for client in admitted) <= 0.01 * len(admitted)


@pytest.mark.parametrize(("profile", "places", "knee"), CASES, ids=["recommendation", "coding"])
def test_whole_seconds_do_as_well(profile: Profile, places: int, knee: float) -> None:
    """The header has no fractions: a client that only reads it comes up to a second late."""
    clients = bursts(profile, knee, duration_s=60, seed=6)
    world = LoadWorld(setpoint_config(places), seed=6, told=lambda seconds: float(ceil(seconds)))
    world.run(clients, retries=20)
    refused = [client for client in clients if client.reasons]
    assert sum(len(client.reasons) == 1 for client in refused) >= 0.9 * len(refused)


def test_nobody_keeps_room_for_clients_who_never_return() -> None:
    clients = bursts(RECOMMENDATION, 36.0, duration_s=150, seed=7)
    world = LoadWorld(setpoint_config(16), seed=7)
    world.run(clients)
    assert isinstance(world.policy, SetpointPolicy)
    assert world.policy.promises.honoured_share < 0.2
    calm = [client for client in clients if client.at_s > 100]
    assert sum(client.admitted_s is not None for client in calm if not client.at_s > 140) >= 0.97 * sum(
        client.at_s <= 140 for client in calm
    )
