"""From columns of requests to excesses of limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.plan.curve import MOST_EXCESS, STRETCHES, Floats
from setpoint.plan.limits import BACKLOG, Limit
from setpoint.plan.samples import PhaseSamples, excess_table
from setpoint.record import Phase
from setpoint.requirement import LatencyMetric, LatencySlo, Slos

MIDDLE = len(STRETCHES) // 2


def samples(ttft_s: list[float], shed: int = 0, gaps: tuple[Floats, Floats] | None = None) -> PhaseSamples:
    values = np.array(ttft_s)
    empty = np.zeros(0)
    gap_values, gap_counts = gaps or (empty, empty)
    return PhaseSamples(
        Phase.SUSTAINED,
        len(values) + shed,
        shed,
        values,
        values / 10,
        values * 2,
        values / 2,
        values / 5,
        gap_values,
        gap_counts,
    )


def excess(found: PhaseSamples, limit: Limit, slos: Slos | None = None) -> Floats:
    row: Floats = excess_table([found], [limit], {Phase.SUSTAINED: slos or Slos()})[0]
    return row


def latency(metric: str, percent: float, limit_s: float) -> Limit:
    return Limit(metric, f"p{percent:g}", Phase.SUSTAINED, limit_s, percent)


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=50), st.floats(1, 99))
def test_a_latency_excess_is_its_percentile_over_the_limit_and_stretches(values: list[float], percent: float) -> None:
    rank = max(1, int(np.ceil(len(values) * percent / 100 - 1e-9)))
    row = excess(samples(values), latency("ttft", percent, 0.5))
    assert row[MIDDLE] == pytest.approx(sorted(values)[rank - 1] / 0.5)
    assert row == pytest.approx(row[MIDDLE] * STRETCHES)


def test_what_is_outside_the_steps_does_not_stretch() -> None:
    """Seen: an error of the steps lengthened the network, and a plan that held was called unsure."""
    found = replace(samples([0.16]), front_s=0.06)
    ttft = excess(found, latency("ttft", 50, 0.2))
    assert ttft == pytest.approx((0.06 + 0.1 * STRETCHES) / 0.2)
    assert excess(found, latency("tpot", 50, 0.016)) == pytest.approx(STRETCHES)
    limit = Limit("goodput_fraction", "min", Phase.SUSTAINED, 0.5)
    slos = Slos(latency=(LatencySlo(metric=LatencyMetric.TTFT, percentile=95.0, limit_s=0.2),))
    assert (excess(found, limit, slos) <= 1.0).tolist() == (ttft <= 1.0).tolist()
    spread = excess(replace(samples([0.16, 0.26]), front_s=0.06), Limit("spread", "ttft", Phase.SUSTAINED, 2.0))
    assert spread == pytest.approx((0.06 + 0.2 * STRETCHES) / (0.06 + 0.1 * STRETCHES) / 2.0)


def test_gaps_are_weighted_by_their_counts() -> None:
    found = samples([1.0], gaps=(np.array([0.01, 0.1]), np.array([97.0, 3.0])))
    assert found.percentile_s("itl", 95) == 0.01
    assert found.percentile_s("itl", 98) == 0.1


def test_requests_that_never_end_are_infinitely_late() -> None:
    assert excess(samples([0.1, np.inf]), latency("ttft", 95, 0.5))[MIDDLE] == MOST_EXCESS


def test_goodput_counts_refusals_and_is_met_at_its_limit() -> None:
    limit = Limit("goodput_fraction", "min", Phase.SUSTAINED, 0.9)
    slos = Slos(latency=(LatencySlo(metric=LatencyMetric.TTFT, percentile=95, limit_s=0.5),))
    exactly = samples([0.1] * 18, shed=2)
    assert excess(exactly, limit, slos)[MIDDLE] == pytest.approx(1.0)
    row = excess(samples([0.4] * 20), limit, slos)
    assert row[0] < 1e-3
    assert row[-1] == pytest.approx(10.0)


def test_refusals_over_their_limit() -> None:
    limit = Limit("shed_fraction", "max", Phase.SUSTAINED, 0.05)
    assert excess(samples([0.1] * 18, shed=2), limit)[MIDDLE] == pytest.approx(2.0)
    none_allowed = Limit("shed_fraction", "max", Phase.SUSTAINED, 0.0)
    assert excess(samples([0.1], shed=1), none_allowed)[MIDDLE] == MOST_EXCESS
    assert excess(samples([0.1]), none_allowed)[MIDDLE] < 1


def test_spread_does_not_stretch() -> None:
    row = excess(samples([0.1] * 98 + [0.4] * 2), Limit("spread", "ttft", Phase.SUSTAINED, 2.0))
    assert row == pytest.approx(np.full(len(STRETCHES), 2.0))


def test_a_phase_that_did_not_happen_met_nothing() -> None:
    limit = Limit("ttft", "p95", Phase.BURST, 1.0, 95.0)
    assert (excess_table([samples([0.1])], [limit], {}) == MOST_EXCESS).all()


def test_a_backlog_over_its_limit() -> None:
    limit = Limit(BACKLOG, "max", Phase.SUSTAINED, 0.03, implied=True)
    row = excess(replace(samples([0.1] * 20), backlog=0.06), limit)
    assert row == pytest.approx(np.full(len(STRETCHES), 2.0))
    assert excess(samples([0.1] * 20), limit)[MIDDLE] < 1e-3


def test_gaps_decide_who_is_good_where_they_are_limited() -> None:
    limit = Limit("goodput_fraction", "min", Phase.SUSTAINED, 0.5)
    slos = Slos(latency=(LatencySlo(metric=LatencyMetric.ITL, percentile=95, limit_s=0.5),))
    found = replace(samples([0.1] * 4), gap_severity=np.array([0.5, 0.9, 1.1, np.inf]))
    assert excess(found, limit, slos)[MIDDLE] == pytest.approx(1.0)
    assert excess(found, limit)[MIDDLE] < 1e-3
