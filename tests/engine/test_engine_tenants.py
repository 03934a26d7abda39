"""Two tenants, one sending ten times as much: the other hardly notices."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from load_world import CODING, Client, LoadWorld, Profile, arrivals

from setpoint.engine.tenants import TenantNumbers
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.views import RequestLimits

NO_LIMITS = Profile(CODING.prompt, CODING.output, RequestLimits(), True, 128)


def first_p95_s(clients: list[Client], tenant: str) -> float:
    seconds = [c.first_s - c.at_s for c in clients if c.tenant == tenant and c.first_s is not None]
    return float(np.quantile(seconds, 0.95))


def run(mode: BatchingMode) -> list[Client]:
    clients = [
        *arrivals(NO_LIMITS, lambda _: 2.0, most_rate=2.0, duration_s=20, seed=3, tenant="small"),
        *arrivals(NO_LIMITS, lambda _: 20.0, most_rate=20.0, duration_s=20, seed=4, tenant="big"),
    ]
    clients.sort(key=lambda client: client.at_s)
    LoadWorld(ServingConfig(mode=mode, max_running=48, token_budget=512), seed=1).run(clients)
    return clients


def test_a_flood_of_one_tenant_is_its_own_wait() -> None:
    fair, first_come = run(BatchingMode.SETPOINT), run(BatchingMode.CONTINUOUS)
    assert first_p95_s(fair, "small") < 0.1 * first_p95_s(first_come, "small")
    assert first_p95_s(fair, "small") < 0.1 * first_p95_s(fair, "big")


@given(st.lists(st.text(max_size=2), max_size=60))
def test_numbers_are_small_distinct_and_kept(names: list[str]) -> None:
    numbers = TenantNumbers(most=5)
    for name in names:
        number = numbers.number(name)
        assert 0 <= number <= 5
        assert (number == 0) == (name == "")
        assert numbers.number(name) == number
    newest = list(dict.fromkeys(reversed([name for name in names if name])))[:5]
    assert len({numbers.number(name) for name in newest}) == len(newest)
