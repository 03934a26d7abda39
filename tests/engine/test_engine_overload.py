"""Overload in simulation: whoever is admitted is served in time, as much is served as at the knee, and long requests too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from load_world import CODING, RECOMMENDATION, Client, LoadWorld, Profile, arrivals, setpoint_config

SETTLED_S = 5.0


@dataclass(frozen=True, slots=True)
class Served:
    """Figures of a run after its first seconds."""

    requests_per_s: float
    tokens_per_s: float
    admitted_good: float
    shares: tuple[float, ...]
    spread: float


def load(profile: Profile, rate: float, places: int, *, duration_s: float = 35.0) -> Served:
    clients = arrivals(profile, lambda _: rate, most_rate=rate, duration_s=duration_s, seed=int(rate))
    LoadWorld(setpoint_config(places), seed=1).run(clients)
    return figures([client for client in clients if client.at_s > SETTLED_S], duration_s - SETTLED_S)


def figures(clients: list[Client], seconds: float) -> Served:
    good = [client for client in clients if client.good()]
    admitted = [client for client in clients if client.admitted_s is not None]
    lengths = np.array([client.prompt + client.output for client in clients])
    kept = np.array([client.admitted_s is not None for client in clients])
    edges = np.quantile(lengths, [0.25, 0.5, 0.75])
    quartile = np.searchsorted(edges, lengths)
    e2e = [client.end_s - client.at_s for client in good if client.end_s is not None]
    return Served(
        len(good) / seconds,
        sum(client.prompt + client.output for client in good) / seconds,
        len(good) / len(admitted),
        tuple(float(kept[quartile == q].mean() / kept.mean()) for q in range(4)),
        float(np.quantile(e2e, 0.99) / np.median(e2e)),
    )


@pytest.mark.parametrize(
    ("profile", "places", "knee"), [(RECOMMENDATION, 16, 36.0), (CODING, 48, 11.0)], ids=["recommendation", "coding"]
)
def test_goodput_holds_beyond_the_knee(profile: Profile, places: int, knee: float) -> None:
    at_knee = load(profile, knee, places)
    assert at_knee.admitted_good >= 0.99
    for factor in (2, 4):
        beyond = load(profile, factor * knee, places)
        assert beyond.admitted_good >= 0.99, "the admitted keep their limits"
        assert beyond.requests_per_s >= 0.9 * at_knee.requests_per_s
        assert beyond.tokens_per_s >= 0.9 * at_knee.tokens_per_s
        assert min(beyond.shares) >= 0.5, "no length is shut out"
        assert beyond.spread <= max(4.0, at_knee.spread)


@pytest.mark.parametrize(
    ("profile", "places", "knee"), [(RECOMMENDATION, 16, 36.0), (CODING, 48, 11.0)], ids=["recommendation", "coding"]
)
def test_bursts_leave_the_admitted_in_time(profile: Profile, places: int, knee: float) -> None:
    """5x bursts of 10 s on a steady 0.6x."""
    clients = arrivals(
        profile,
        lambda t: knee * (3.0 if t % 30 >= 20 else 0.6),
        most_rate=3 * knee,
        duration_s=90,
        seed=2,
    )
    LoadWorld(setpoint_config(places), seed=2).run(clients)
    admitted = [client for client in clients if client.admitted_s is not None]
    assert sum(not client.good() for client in admitted) <= 0.01 * len(admitted)
