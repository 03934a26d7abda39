"""A server that freezes for 3 s behind a client limit of 8: the waiting is in the figures, as a queue simulation says."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from truth_world import Floats, Measured, all_of, measure, percentile_of, planned_load

from setpoint.measure.mock import MockOptions
from setpoint.requirement import LatencyMetric, LatencySlo, Slos

LIMIT = 8
TOKENS, TTFT_S, ITL_S = 8, 0.05, 0.01
MOCK = MockOptions(ttft_s=TTFT_S, itl_s=ITL_S, frozen_s=(1.0, 4.0))
TTFT_LIMIT_S = 0.5
SLOS = Slos(latency=(LatencySlo(metric=LatencyMetric.TTFT, percentile=95, limit_s=TTFT_LIMIT_S),))
WITHIN_SHARE = 0.05


@pytest.fixture(scope="module")
def frozen() -> Measured:
    return measure(planned_load(40.0, 6.0, TOKENS, seed=5), MOCK, max_in_flight=LIMIT)


def simulated_ttft_s(run: Measured, freeze_s: tuple[float, float]) -> Floats:
    """TTFT from the intended send at a server that stands still in between, behind a first-come queue of 8 places.

    On a clock that stands still with the server this is a plain queue; all that arrives meanwhile arrives at one instant.
    How long each request took once it had its place is the server's own account: on a busy machine it is a bit slower than
    planned, and a queue is slower by much more.
    """
    from_s, to_s = freeze_s
    known = run.log.by_id()

    def served(time_s: float) -> float:
        return time_s if time_s < from_s else max(from_s, time_s - (to_s - from_s))

    places = [-np.inf] * LIMIT
    ttft_s = []
    for row in run.result.outcomes:
        time_s = run.start_s + row.intended_s
        request = known[row.request_id]
        received_s, *token_s = (served(one_s) for one_s in (request.received_s, *request.token_times_s))
        begin_s = max(served(time_s), heapq.heappop(places))
        heapq.heappush(places, begin_s + token_s[-1] - received_s)
        first_s = begin_s + token_s[0] - received_s
        ttft_s.append((first_s if first_s < from_s else first_s + (to_s - from_s)) - time_s)
    return np.array(ttft_s)


def test_intended_time_figures_are_those_of_the_queue(frozen: Measured) -> None:
    (freeze_s,) = frozen.log.freezes_s
    assert freeze_s[1] - freeze_s[0] >= 3.0
    true_s = simulated_ttft_s(frozen, freeze_s)
    assert len(true_s) == len(frozen.plan.requests)
    measures = frozen.measures(slos=SLOS)
    assert measures.ok + measures.late == measures.offered
    p90_s, attainment = percentile_of(true_s, 90), float((true_s <= TTFT_LIMIT_S).mean())
    assert measures.ttft_s.p90 == pytest.approx(p90_s, rel=WITHIN_SHARE)
    assert measures.goodput_fraction == pytest.approx(attainment, rel=WITHIN_SHARE)
    # What a figure from the send would have said: next to nothing happened.
    assert p90_s > 2.0
    assert attainment < 0.7
    from_send_s = [row.first_token_s - row.sent_s for row in frozen.result.outcomes if row.first_token_s and row.sent_s]
    assert percentile_of(from_send_s, 90) < 0.3


def test_figures_are_the_log_too(frozen: Measured) -> None:
    measures = frozen.measures(slos=SLOS)
    true = frozen.true_requests()
    assert len(true) == len(frozen.plan.requests)
    ttft = all_of(request.ttft for request in true)
    ttft.assert_near(measures.ttft_s.p50, 50, "TTFT")
    ttft.assert_near(measures.ttft_s.p99, 99, "TTFT")
    all_of(request.gaps for request in true).assert_near(measures.itl_s.p99, 99, "ITL")
    all_of(request.largest_gap for request in true).assert_near(measures.max_gap_s.max, 100, "largest gap of all")
    assert frozen.result.client.held_back > 0
