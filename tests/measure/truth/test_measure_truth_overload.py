"""More load than the server can serve, cut off by time: what is unfinished counts as slow, and is never forgotten."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from truth_world import Measured, measure, percentile_of, planned_load

from setpoint.measure.mock import Ended, MockOptions
from setpoint.record import RequestClass
from setpoint.requirement import LatencyMetric, LatencySlo, Slos

SLOTS, TOKENS, TTFT_S, ITL_S = 4, 10, 0.05, 0.01
SERVICE_S = TTFT_S + (TOKENS - 1) * ITL_S
DURATION_S, DRAIN_S = 3.0, 0.3
E2E_LIMIT_S = 0.6
SLOS = Slos(latency=(LatencySlo(metric=LatencyMetric.E2E, percentile=95, limit_s=E2E_LIMIT_S),))
WITHIN_SHARE = 0.05


@pytest.fixture(scope="module")
def overloaded() -> Measured:
    """Half as much again as four slots can serve."""
    plan = planned_load(1.5 * SLOTS / SERVICE_S, DURATION_S, TOKENS, seed=2)
    mock = MockOptions(slots=SLOTS, ttft_s=TTFT_S, itl_s=ITL_S)
    return measure(plan, mock, drain_s=DRAIN_S)


def true_e2e_s(run: Measured) -> list[float]:
    """E2E if every request had been waited for: a first-come queue at four slots.

    A request that was served took as long as the server says, the others what was planned.
    """
    slots = [-np.inf] * SLOTS
    known = run.log.by_id()
    found = []
    for row in run.result.outcomes:
        served = known.get(row.request_id)
        took_s = SERVICE_S
        if served is not None and served.ended is Ended.COMPLETE and served.begun_s is not None:
            took_s = float(served.token_times_s[-1]) - served.begun_s
        begin_s = max(row.intended_s, heapq.heappop(slots))
        heapq.heappush(slots, begin_s + took_s)
        found.append(begin_s + took_s - row.intended_s)
    return found


def test_unfinished_requests_are_counted_and_no_percentile_is_flattered(overloaded: Measured) -> None:
    measures = overloaded.measures(slos=SLOS)
    true_s = true_e2e_s(overloaded)
    cut_s = DURATION_S + DRAIN_S
    ends_s = [request.intended_s + e2e_s for request, e2e_s in zip(overloaded.plan.requests, true_s, strict=True)]
    unfinished = sum(end_s > cut_s for end_s in ends_s)
    assert unfinished > 0.15 * len(true_s)
    assert measures.unfinished == pytest.approx(unfinished, abs=max(SLOTS, WITHIN_SHARE * len(true_s)))
    assert measures.ok + measures.late + measures.unfinished == measures.offered == len(true_s)
    attainment = sum(e2e_s <= E2E_LIMIT_S for e2e_s in true_s) / len(true_s)
    assert measures.goodput_fraction == pytest.approx(attainment, rel=WITHIN_SHARE, abs=2 / len(true_s))
    served_s = [row.e2e_s for row in overloaded.result.outcomes if row.e2e_s is not None]
    bounds = measures.e2e_s.at_least or ()
    for name, percent in (("p50", 50), ("p90", 90), ("p99", 99)):
        found_s, true = getattr(measures.e2e_s, name), percentile_of(true_s, percent)
        if name in bounds:  # Some of it was cut off: said to be a lower bound, and above that of the served alone.
            assert percentile_of(served_s, percent) <= found_s <= (1.0 + WITHIN_SHARE) * true
        else:
            assert found_s is None or found_s == pytest.approx(true, rel=WITHIN_SHARE)
    assert "p99" in bounds or measures.e2e_s.p99 is None
    assert measures.e2e_s.max is None
    interval = measures.e2e_s.p50_ci
    assert interval is None or interval[0] <= percentile_of(true_s, 50) <= interval[1]


def test_what_was_cut_off_had_waited_until_then(overloaded: Measured) -> None:
    rows = [row for row in overloaded.result.outcomes if row.request_class is RequestClass.UNFINISHED]
    known = overloaded.log.by_id()
    assert all(known[row.request_id].ended_s is None or row.ended_s is None for row in rows)
    first = [row for row in rows if row.first_token_s is not None]
    assert len(first) <= SLOTS
