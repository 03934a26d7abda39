"""Every behaviour of the mock in one run: the report's percentiles against the truth, each request in its one class."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from truth_world import WITHIN_S, Known, Measured, TrueRequest, all_of, measure, percentile_of, planned_load

from setpoint.measure.mock import Behaviour, MockOptions, MockRequest
from setpoint.record import RequestClass, Summary

OK, FAILED, SHED, UNFINISHED = RequestClass.OK, RequestClass.FAILED, RequestClass.SHED, RequestClass.UNFINISHED

SERVED = (
    Behaviour.PLAIN,
    Behaviour.MULTI_TOKEN,
    Behaviour.SEVERAL_EVENTS,
    Behaviour.SPLIT_EVENT,
    Behaviour.STALLED,
    Behaviour.LATE_HEADERS,
    Behaviour.EARLY_ROLE,
    Behaviour.NO_USAGE,
)
OTHERS = {
    Behaviour.CUT: FAILED,
    Behaviour.CUT_CLEANLY: FAILED,
    Behaviour.RESET: FAILED,
    Behaviour.IN_STREAM_ERROR: FAILED,
    Behaviour.HTTP_429: SHED,
    Behaviour.HTTP_503: SHED,
    Behaviour.HTTP_500: FAILED,
    Behaviour.NOT_STREAMING: OK,
    Behaviour.SILENT: UNFINISHED,
}
EXPECTED = dict.fromkeys(SERVED, OK) | OTHERS
# Behaviours that are served come often enough for a P99 of their own.
DEALT = (*SERVED, *SERVED, *SERVED, *OTHERS)
RATE_RPS, DURATION_S, TOKENS = 330.0, 4.0, (4, 12, 20)
UNEXPLAINED_SHARE = 0.005
MOCK = MockOptions(behaviours=DEALT, ttft_s=0.04, ttft_cv=0.5, itl_s=0.012, itl_cv=0.4, stall_s=0.15, seed=11)


@pytest.fixture(scope="module")
def mixed() -> Measured:
    """The one run that all tests here look at."""
    return measure(planned_load(RATE_RPS, DURATION_S, TOKENS), MOCK, drain_s=1.2)


def of(run: Measured, behaviour: Behaviour) -> list[TrueRequest]:
    def belongs(request: MockRequest) -> bool:
        return request.behaviour is behaviour

    return run.true_requests(belongs)


def assert_summary(found: Summary, true: Known, what: str) -> None:
    assert found.n == len(true), what
    true.assert_near(found.p50, 50, what)
    true.assert_near(found.p99, 99, what)


def test_every_request_is_in_exactly_its_class(mixed: Measured) -> None:
    known = mixed.log.by_id()
    assert len(known) == len(mixed.plan.requests) == len(mixed.result.outcomes)
    wrong = Counter(
        (str(known[row.request_id].behaviour), str(row.request_class), row.error)
        for row in mixed.result.outcomes
        if row.request_class is not EXPECTED[known[row.request_id].behaviour]
    )
    assert not wrong
    measures = mixed.measures()
    ended = measures.ok + measures.late + measures.shed + measures.failed + measures.dropped + measures.unfinished
    assert ended == measures.offered == len(mixed.plan.requests)


def test_stamps_are_late_only_where_something_was_held_up(mixed: Measured) -> None:
    late_s, held_s = [], []
    for request in mixed.true_requests():
        seen = len(request.row.token_times_s)
        late_s.append(request.row.token_times_s + mixed.start_s - request.sent.token_times_s[:seen])
        held_s.append(request.held_s[:seen])
    late, held = np.concatenate(late_s), np.concatenate(held_s)
    assert len(late) > 10_000
    assert late.min() > -1e-4  # The mock notes a send just before it.
    assert float((late - held > WITHIN_S).mean()) <= UNEXPLAINED_SHARE


@pytest.mark.parametrize("behaviour", SERVED)
def test_figures_of_a_behaviour_are_the_truth(mixed: Measured, behaviour: Behaviour) -> None:
    true = of(mixed, behaviour)
    assert len(true) >= 100
    measures = mixed.measures(request.row.request_id for request in true)
    assert measures.ok == len(true)
    assert_summary(measures.ttft_s, all_of(request.ttft for request in true), "TTFT")
    assert_summary(measures.e2e_s, all_of(request.e2e for request in true), "E2E")
    assert_summary(measures.itl_s, all_of(request.gaps for request in true), "ITL")
    largest = all_of(request.largest_gap for request in true)
    assert_summary(measures.max_gap_s, largest, "largest gap")
    if behaviour is Behaviour.STALLED:
        assert float(np.median(largest.true_s)) > MOCK.stall_s  # Of the mock, which may itself be held up before it.


def test_figures_of_the_whole_run_are_the_truth(mixed: Measured) -> None:
    measures = mixed.measures()
    true = mixed.true_requests()
    assert_summary(measures.itl_s, all_of(request.gaps for request in true), "ITL of all streams")
    served = [request for request in true if EXPECTED[request.sent.behaviour] is OK]
    # The silent ones are unfinished: they rank above all others in both.
    count = len(of(mixed, Behaviour.SILENT))
    silent = Known(np.full(count, np.inf), np.zeros(count))
    first = all_of([*(request.ttft for request in served), silent])
    last = all_of([*(request.e2e for request in served), silent])
    for percent, found in ((50, "p50"), (90, "p90")):
        first.assert_near(getattr(measures.ttft_s, found), percent, "TTFT of all")
        last.assert_near(getattr(measures.e2e_s, found), percent, "E2E of all")


@pytest.mark.parametrize("behaviour", [Behaviour.CUT, Behaviour.CUT_CLEANLY, Behaviour.RESET, Behaviour.IN_STREAM_ERROR])
def test_streams_that_broke_keep_the_tokens_that_came(mixed: Measured, behaviour: Behaviour) -> None:
    true = of(mixed, behaviour)
    for request in true:
        seen = len(request.row.token_times_s)
        lost_s = request.sent.token_times_s[seen:]
        # A reset throws away what the kernel had not handed over yet: what was sent while the client was held up.
        assert behaviour is Behaviour.RESET or not len(lost_s)
        if len(lost_s):
            assert request.sent.ended_s is not None
            reset_s = np.full(len(lost_s), request.sent.ended_s)
            assert (reset_s - lost_s <= mixed.witness.held_up_s(lost_s, reset_s) + WITHIN_S).all()
    seen_of = [(request, len(request.row.token_times_s)) for request in true if len(request.row.token_times_s)]
    late_s = [
        float(np.median(request.row.token_times_s + mixed.start_s - request.sent.token_times_s[:seen]))
        for request, seen in seen_of
    ]
    held_s = [float(np.median(request.held_s[:seen])) for request, seen in seen_of]
    Known(np.zeros(len(late_s)), np.array(held_s)).assert_near(percentile_of(late_s, 50), 50, "lateness of the stamps")


def test_refusals_carry_when_to_come_again_and_their_latency(mixed: Measured) -> None:
    for behaviour in (Behaviour.HTTP_429, Behaviour.HTTP_503):
        true = of(mixed, behaviour)
        assert {request.row.retry_after_s for request in true} == {MOCK.retry_after_s}
        took_s = [(request.row.ended_s or 0.0) - request.row.intended_s for request in true]
        all_of(request.refusal for request in true).assert_near(percentile_of(took_s, 50), 50, str(behaviour))


def test_stream_that_came_whole_had_its_first_token_at_its_end(mixed: Measured) -> None:
    true = of(mixed, Behaviour.NOT_STREAMING)
    measures = mixed.measures(request.row.request_id for request in true)
    assert (measures.ttft_s.n, measures.e2e_s.n) == (len(true), len(true))
    assert measures.ttft_s.p50 == measures.e2e_s.p50
    assert all(request.row.output_tokens == request.sent.max_tokens for request in true)
    all_of(request.e2e for request in true).assert_near(measures.e2e_s.p50, 50, "E2E")
