"""More load than the server can serve, cut off by time: what is unfinished counts as slow, and is never forgotten."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from truth_world import WITHIN_S, Known, Measured, TrueRequest, measure, percentile_of, planned_load

from setpoint.measure.mock import Ended, MockOptions, MockRequest
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


def took(request: MockRequest) -> float:
    """From its place to its last token (s)."""
    assert request.begun_s is not None
    return float(request.token_times_s[-1]) - request.begun_s


def true_e2e(run: Measured) -> Known:
    """E2E if every request had been waited for: a first-come queue at four slots.

    A request that was served took as long as the server says, and joined the queue when it was received; the others take
    what those took on average, and join it when they are due.
    """
    slots = [-np.inf] * SLOTS
    known = run.log.by_id()
    whole = [request for request in known.values() if request.ended is Ended.COMPLETE]
    usual_s = float(np.mean([took(request) for request in whole]))
    assert usual_s > SERVICE_S
    e2e_s, held_s = np.zeros(len(run.result.outcomes)), np.zeros(len(run.result.outcomes))
    for place, row in enumerate(run.result.outcomes):
        request = known.get(row.request_id)
        joined_s, took_s = row.intended_s, usual_s
        if request is not None:
            joined_s = request.received_s - run.start_s
            if request.ended is Ended.COMPLETE:
                took_s = took(request)
                held_s[place] = TrueRequest(run, row, request).held_s[-1]
        begin_s = max(joined_s, heapq.heappop(slots))
        heapq.heappush(slots, begin_s + took_s)
        e2e_s[place] = begin_s + took_s - row.intended_s
    return Known(e2e_s, held_s)


def test_requests_join_the_queue_when_they_are_due(overloaded: Measured) -> None:
    true = overloaded.true_requests()
    due_s = np.array([request.intended_s for request in true])
    joined_s = np.array([request.sent.received_s for request in true])
    unexplained_s = joined_s - due_s - overloaded.witness.held_up_s(due_s, joined_s)
    assert (joined_s > due_s).all()
    assert percentile_of(unexplained_s, 95) < WITHIN_S


def test_unfinished_requests_are_counted_and_no_percentile_is_flattered(overloaded: Measured) -> None:
    measures = overloaded.measures(slos=SLOS)
    true = true_e2e(overloaded)
    true_s = true.true_s
    cut_s = DURATION_S + DRAIN_S
    ends_s = [request.intended_s + e2e_s for request, e2e_s in zip(overloaded.plan.requests, true_s, strict=True)]
    unfinished = sum(end_s > cut_s for end_s in ends_s)
    assert unfinished > 0.15 * len(true_s)
    assert measures.unfinished == pytest.approx(unfinished, abs=max(SLOTS, WITHIN_SHARE * len(true_s)))
    assert measures.ok + measures.late + measures.unfinished == measures.offered == len(true_s)
    low, high = (float((true_s + sign * true.held_s <= E2E_LIMIT_S).mean()) for sign in (1.0, -1.0))
    assert measures.goodput_fraction is not None
    few = 2 / len(true_s)
    assert low * (1 - WITHIN_SHARE) - few <= measures.goodput_fraction <= high * (1 + WITHIN_SHARE) + few
    served_s = [row.e2e_s for row in overloaded.result.outcomes if row.e2e_s is not None]
    bounds = measures.e2e_s.at_least or ()
    for name, percent in (("p50", 50), ("p90", 90), ("p99", 99)):
        found_s = getattr(measures.e2e_s, name)
        least_s, most_s = (percentile_of(true_s + sign * true.held_s, percent) for sign in (-1.0, 1.0))
        if name in bounds:  # Some of it was cut off: said to be a lower bound, and above that of the served alone.
            assert percentile_of(served_s, percent) <= found_s <= (1.0 + WITHIN_SHARE) * most_s
        else:
            assert found_s is None or (1.0 - WITHIN_SHARE) * least_s <= found_s <= (1.0 + WITHIN_SHARE) * most_s
    assert "p99" in bounds or measures.e2e_s.p99 is None
    assert measures.e2e_s.max is None
    interval = measures.e2e_s.p50_ci
    held_s = float(true.held_s.max())
    assert interval is None or interval[0] - held_s <= percentile_of(true_s, 50) <= interval[1] + held_s


def test_what_was_cut_off_had_waited_until_then(overloaded: Measured) -> None:
    rows = [row for row in overloaded.result.outcomes if row.request_class is RequestClass.UNFINISHED]
    known = overloaded.log.by_id()
    assert all(known[row.request_id].ended_s is None or row.ended_s is None for row in rows)
    first = [row for row in rows if row.first_token_s is not None]
    assert len(first) <= SLOTS
