"""A real server on the demo model is treated badly, in small counts; nothing is left behind and it serves on.

The full counts are those of ``benchmarks/chaos/chaos.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from chaos_bodies import generated, hostile
from chaos_scenarios import cut_clients, idle_connections, killed_step, sigterm_under_load, slow_readers
from chaos_server import ChaosServer, State, chaos_server

pytestmark = pytest.mark.model

# What may stay of one scenario: the allocator's caches, and rings of records that fill up.
MOST_GROWTH_MB = 64.0


@pytest.fixture(scope="module")
def server() -> Iterator[ChaosServer]:
    with chaos_server() as one:
        yield one


@pytest.fixture(scope="module")
def baseline(server: ChaosServer) -> State:
    """The server at rest after a little of everything."""

    async def warm() -> State:
        return await server.rested_state()

    return asyncio.run(warm())


@pytest.fixture(autouse=True)
def _nothing_is_left(server: ChaosServer, baseline: State) -> Iterator[None]:
    before = asyncio.run(server.state())
    yield
    if server.process.poll() is None:
        after = asyncio.run(server.back_to(baseline))
        assert after.rss_mb - before.rss_mb < MOST_GROWTH_MB, (before, after)


def test_clients_cut_in_mid_stream(server: ChaosServer) -> None:
    assert asyncio.run(cut_clients(server, 60))["clients"] == 60


def test_hostile_bodies(server: ChaosServer) -> None:
    figures = asyncio.run(hostile(server))
    assert figures["statuses"][400] > 50


def test_what_the_schema_allows_and_forbids(server: ChaosServer) -> None:
    figures = generated(server, 3)
    assert any(name.startswith("positive 200") for name in figures["statuses"]), figures


def test_idle_connections(server: ChaosServer) -> None:
    assert asyncio.run(idle_connections(server, 200, asks=3))["connections"] == 200


def test_slow_readers(server: ChaosServer) -> None:
    assert asyncio.run(slow_readers(server, 2))["cut"] >= 2


def test_a_step_that_is_killed(server: ChaosServer) -> None:
    assert asyncio.run(killed_step(server, 12))["streams"] == 12


def test_sigterm_under_load_loses_no_stream(server: ChaosServer) -> None:
    assert asyncio.run(sigterm_under_load(server, 8))["exit_code"] == 0
