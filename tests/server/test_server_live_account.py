"""Every request ends in exactly one class, and is judged by its own limits: on injected time, with any order of events."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from setpoint.engine.request import FinishReason, GenerationRequest
from setpoint.policy.views import RequestLimits
from setpoint.server import errors
from setpoint.server.live.account import FINISHED, AnswerClock, RequestAccount, refusal_code
from setpoint.server.live.book import OTHER, REASONS_MAX, BoundedCounts, Ending, LiveBook
from setpoint.server.live.checks import E2E, ITL, TPOT, TTFT, LatencyCheck, Objectives

GAPS_S = st.lists(st.floats(0.0, 0.2), min_size=0, max_size=60)
LIMITS = st.one_of(st.none(), st.floats(0.001, 2.0))
ERRORS = (
    errors.overloaded("ttft_would_be forecast_s=1", 2.0),
    errors.shutting_down(),
    errors.engine_error("broken"),
    errors.invalid("n: found 0", "n"),
    errors.ApiError(429, "too many", code="rate_limit_exceeded"),
)


def asked(limits: RequestLimits | None = None, *, streaming: bool = True) -> GenerationRequest:
    return GenerationRequest((1, 2), name="r", streaming=streaming, limits=limits or RequestLimits())


def answered(
    book: LiveBook, gaps_s: Sequence[float], limits: RequestLimits, *, first_s: float = 0.1, streaming: bool = True
) -> Ending | None:
    """A request whose answer came whole, its tokens one by one."""
    account = RequestAccount(book, "r")
    account.asked(asked(limits, streaming=streaming), 10.0)
    clock = account.clock()
    now_s = 10.0 + first_s
    clock.tokens(1, now_s)
    for gap_s in gaps_s:
        now_s += gap_s
        clock.tokens(1, now_s)
    clock.finished(now_s)
    clock.ended(FinishReason.STOP)
    return account.close(now_s)


def ok_by_definition(gaps_s: Sequence[float], limits: RequestLimits, first_s: float, percent: float, streaming: bool) -> bool:
    """DESIGN.md section 3, written down once more in plain words."""
    # As the clock sees them: differences of moments.
    moments_s = [10.0 + first_s]
    for gap_s in gaps_s:
        moments_s.append(moments_s[-1] + gap_s)
    seen_s = [after - before for before, after in pairwise(moments_s)]
    if limits.e2e_s is not None and moments_s[-1] - 10.0 > limits.e2e_s:
        return False
    if not streaming:
        return True
    if limits.ttft_s is not None and moments_s[0] - 10.0 > limits.ttft_s:
        return False
    if limits.tpot_s is not None and seen_s and (moments_s[-1] - moments_s[0]) / len(seen_s) > limits.tpot_s:
        return False
    over = 0 if limits.itl_s is None else sum(gap_s > limits.itl_s for gap_s in seen_s)
    return over <= (1 - percent / 100) * len(seen_s) + 1e-9


@settings(deadline=None)
@given(
    GAPS_S,
    st.builds(RequestLimits, ttft_s=LIMITS, itl_s=LIMITS, tpot_s=LIMITS, e2e_s=LIMITS),
    st.floats(0.0, 2.0),
    st.sampled_from([50.0, 90.0, 95.0, 99.0]),
    st.booleans(),
)
def test_a_served_request_is_ok_exactly_when_it_met_its_limits(
    gaps_s: list[float], limits: RequestLimits, first_s: float, percent: float, streaming: bool
) -> None:
    own = () if limits.itl_s is None else (LatencyCheck(ITL, percent, limits.itl_s),)
    book = LiveBook(Objectives(latency=own))
    ending = answered(book, gaps_s, limits, first_s=first_s, streaming=streaming)
    good = ok_by_definition(gaps_s, limits, first_s, percent, streaming)
    assert ending is (Ending.OK if good else Ending.LATE)
    book.check_integrity()
    judged = {name: each.judged_total for name, each in book.latencies.items()}
    assert judged[ITL] == (len(gaps_s) if streaming and limits.itl_s is not None else 0)
    assert judged[TTFT] == (streaming and limits.ttft_s is not None)
    assert judged[TPOT] == (streaming and limits.tpot_s is not None and bool(gaps_s))
    assert judged[E2E] == (limits.e2e_s is not None)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.one_of(st.none(), st.sampled_from(ERRORS)),
            st.lists(st.one_of(st.none(), st.sampled_from(list(FinishReason))), max_size=3),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_every_request_ends_in_exactly_one_class_and_sums_agree(
    fates: list[tuple[bool, errors.ApiError | None, list[FinishReason | None], bool]],
) -> None:
    """Whatever happens: understood or not, an error or none, any number of answers ended in any way, draining or not."""
    book = LiveBook()
    endings: list[Ending | None] = []
    for understood, error, reasons, draining in fates:
        before = book.offered
        account = RequestAccount(book, "r")
        if understood:
            account.asked(asked(RequestLimits(ttft_s=1.0, itl_s=1.0, e2e_s=5.0)), 0.0)
            # A wrong request has no answers: the engine never took it.
            if error is None or error.status != 400:
                for reason in reasons:
                    account.clock().ended(reason)
                    assert book.unfinished == 1
        if error is not None:
            account.refused(error)
        endings.append(account.close(1.0, draining=draining))
        assert book.offered - before == (endings[-1] is not None)
        assert book.unfinished == 0
        book.check_integrity()
    counted = [ending for ending in endings if ending is not None]
    assert {each: counted.count(each) for each in Ending} == book.ended
    assert sum(book.ended.values()) == book.offered
    assert book.invalid == sum(error is not None and error.status == 400 for _, error, _, _ in fates)


@pytest.mark.parametrize(
    ("reason", "draining", "ending"),
    [
        (FinishReason.STOP, False, Ending.OK),
        (FinishReason.LENGTH, False, Ending.OK),
        (FinishReason.ERROR, False, Ending.FAILED),
        (FinishReason.SHED, False, Ending.FAILED),  # in the stream: the client sees an error event
        (FinishReason.CANCELLED, False, Ending.CANCELLED),
        (FinishReason.CANCELLED, True, Ending.FAILED),
        (None, False, Ending.CANCELLED),
    ],
)
def test_how_an_answer_ended_says_how_the_request_did(reason: FinishReason | None, draining: bool, ending: Ending) -> None:
    book = LiveBook()
    account = RequestAccount(book, "r")
    account.asked(asked(), 0.0)
    account.clock().ended(reason)
    assert account.close(1.0, draining=draining) is ending


def test_a_failed_request_is_infinitely_late_and_a_shed_one_is_in_no_latency() -> None:
    book = LiveBook()
    limits = RequestLimits(ttft_s=1.0, e2e_s=5.0)
    for error in (errors.engine_error("broken"), errors.overloaded("queue_full waiting=3", 1.5)):
        account = RequestAccount(book, "r")
        account.asked(asked(limits), 0.0)
        account.refused(error)
        account.close(1.0)
    judged = {name: (each.judged_total, each.met_total) for name, each in book.latencies.items()}
    assert judged[TTFT] == judged[E2E] == (1, 0)
    assert book.cut()[TTFT][0].tolist()[-1] == 1
    assert book.shed_reasons.items() == [("queue_full", 1)]
    assert book.retry_after.totals([2.0]) == ([1], 1, 1.5)
    assert (book.refusals[0].code, book.refusals[0].retry_after_s) == ("queue_full", 1.5)


def test_who_left_before_being_understood_was_not_offered() -> None:
    book = LiveBook()
    assert RequestAccount(book, "r").close(0.0) is None
    assert (book.offered, book.invalid) == (0, 0)


def test_several_answers_are_one_request_which_is_late_if_one_of_them_is() -> None:
    book = LiveBook()
    account = RequestAccount(book, "r")
    account.asked(asked(RequestLimits(ttft_s=1.0)), 0.0)
    for first_s in (0.5, 1.5):
        clock = account.clock()
        clock.tokens(1, first_s)
        clock.finished(first_s)
        clock.ended(FinishReason.STOP)
    assert account.close(2.0) is Ending.LATE
    assert sum(book.ended.values()) == book.offered == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0.0, 1.0)), max_size=30))
def test_a_chunk_of_tokens_is_one_gap_and_the_rest_zero(chunks: list[tuple[int, float]]) -> None:
    book = LiveBook()
    clock = AnswerClock(book, 0.0)
    now_s = 0.0
    for count, after_s in chunks:
        now_s += after_s
        clock.tokens(count, now_s)
    tokens = sum(count for count, _ in chunks)
    assert book.latencies[ITL].free.count == max(0, tokens - 1)
    assert book.latencies[TTFT].free.count == (tokens > 0)
    assert clock.begun == (tokens > 0)


def test_the_objectives_percentile_holds_where_the_limit_is_theirs() -> None:
    wanted = Objectives(latency=(LatencyCheck(ITL, 99.0, 0.06), LatencyCheck(ITL, 50.0, 0.02)))
    assert wanted.gap_limits(RequestLimits()) == ()
    assert wanted.gap_limits(RequestLimits(itl_s=0.02)) == ((0.02, 0.5), (0.06, 1.0 - 99.0 / 100.0))
    assert wanted.gap_limits(RequestLimits(itl_s=0.05)) == ((0.05, 1.0 - 99.0 / 100.0),)


@settings(deadline=None)
@given(st.lists(st.text(max_size=20), max_size=200))
def test_reasons_are_bounded(reasons: list[str]) -> None:
    counts = BoundedCounts()
    for reason in reasons:
        counts.add(reason)
    assert counts.total == len(reasons)
    assert len(counts.items()) <= REASONS_MAX + 1
    if len(set(reasons)) > REASONS_MAX:
        assert OTHER in dict(counts.items())


def test_codes_of_reasons() -> None:
    assert refusal_code("itl_would_be forecast_s=0.1 limit_s=0.06", "x") == "itl_would_be"
    assert refusal_code("shed: it could no longer make its deadline (slack)", "x") == "doomed"
    assert refusal_code("", "server_shutting_down") == "server_shutting_down"
    assert set(FINISHED) == {FinishReason.STOP, FinishReason.LENGTH}


def given_up(limits: RequestLimits, after_s: float, *, first_s: float | None = None) -> tuple[Ending, Ending]:
    """How a request whose client leaves after so long ended, and how those who learn from outcomes see it."""
    book = LiveBook()
    account = RequestAccount(book, "r")
    account.asked(asked(limits), 10.0)
    clock = account.clock()
    assert book.open == {account}
    if first_s is not None:
        clock.tokens(1, 10.0 + first_s)
    standing = account.standing(10.0 + after_s)
    clock.ended(None)
    ending = account.close(10.0 + after_s)
    assert ending is not None
    assert not book.open
    ((arrived_s, seen),) = book.outcomes
    assert arrived_s == 10.0
    assert (standing is False) is (seen is Ending.LATE)
    return ending, seen


@pytest.mark.parametrize(
    ("limits", "after_s", "first_s", "seen"),
    [
        (RequestLimits(ttft_s=0.5), 30.0, None, Ending.LATE),
        (RequestLimits(ttft_s=0.5), 0.4, None, Ending.CANCELLED),
        (RequestLimits(ttft_s=0.5), 30.0, 0.3, Ending.CANCELLED),
        (RequestLimits(ttft_s=0.5), 30.0, 0.9, Ending.LATE),
        (RequestLimits(e2e_s=2.0), 30.0, 0.3, Ending.LATE),
        (RequestLimits(), 30.0, None, Ending.CANCELLED),
    ],
)
def test_a_client_that_gives_up_after_a_limit_had_passed_is_one_that_was_served_late(
    limits: RequestLimits, after_s: float, first_s: float | None, seen: Ending
) -> None:
    assert given_up(limits, after_s, first_s=first_s) == (Ending.CANCELLED, seen)
