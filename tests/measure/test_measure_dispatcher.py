"""What comes up in the run, against a real server: slots of a closed loop, next turns, retries, a given start."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from time import monotonic

import pytest
from measure_helpers import even_plan, run_against_mock
from mock_scripts import FIRST_S, GAP_S, TOKENS
from mock_server import MockServer, mock_server

from setpoint.measure.backlog import LEFT_OPEN_S
from setpoint.measure.client import run_load
from setpoint.measure.event_loop import run
from setpoint.measure.options import Endpoint, LoadOptions
from setpoint.measure.result import Ended, LoadResult
from setpoint.measure.target import Target
from setpoint.record import CONVERSATION_OVER, Phase, RequestClass
from setpoint.workload.plan import LoadPlan, PhaseSpan, PlannedRequest

LAST_S = FIRST_S + (TOKENS - 1) * GAP_S
# Loops round timers to milliseconds; the mock's may fire that much early.
EARLY_S = 0.004


def closed_plan(requests: int, concurrency: int, end_s: float = 0.0, turns: int = 1) -> LoadPlan:
    """``requests`` sessions of ``turns`` turns, half a warm-up where requests end the phases (``end_s`` is 0)."""
    planned = []
    for index in range(requests * turns):
        phase = Phase.WARMUP if not end_s and index < requests * turns // 2 else Phase.SUSTAINED
        follows = None if index % turns == 0 else index - 1
        session = f"s{index // turns}" if turns > 1 else None
        planned.append(PlannedRequest(index, 0.0, phase, "x", 1, 6, session=session, turn=index % turns, follows=follows))
    phases = [Phase.SUSTAINED] if end_s else [Phase.WARMUP, Phase.SUSTAINED]
    return LoadPlan(0, [PhaseSpan(phase, 0.0, end_s) for phase in phases], planned, True, concurrency)


def conversation(turns: int, think_s: float = 0.0, end_s: float = 60.0) -> LoadPlan:
    requests = [
        PlannedRequest(
            turn,
            0.0,
            Phase.SUSTAINED,
            f"question {turn} ",
            2,
            6,
            session="s",
            turn=turn,
            follows=turn - 1 if turn else None,
            think_s=think_s if turn else 0.0,
        )
        for turn in range(turns)
    ]
    return LoadPlan(0, [PhaseSpan(Phase.SUSTAINED, 0.0, end_s)], requests, True)


def test_slots_of_a_closed_loop_send_as_soon_as_the_last_answer_ended() -> None:
    result, mock = run_against_mock(closed_plan(8, concurrency=2))
    assert mock.open_peak == 2
    rows = result.outcomes
    assert [row.request_class for row in rows] == [RequestClass.OK] * 8
    assert sorted(row.index for row in rows) == list(range(8))
    ends_s = sorted(row.ended_s for row in rows if row.ended_s is not None)
    assert [row.intended_s for row in rows] == [0.0, 0.0, *ends_s[:6]]
    assert all(row.ttft_s is not None and row.ttft_s > FIRST_S - EARLY_S for row in rows)


def test_closed_loop_by_number_of_requests_makes_its_own_phases() -> None:
    result, _ = run_against_mock(closed_plan(8, concurrency=2))
    warmup, sustained = result.phases
    first_sustained = min(row.intended_s for row in result.outcomes if row.phase is Phase.SUSTAINED)
    assert (warmup.start_s, warmup.end_s) == (0.0, first_sustained)
    assert (sustained.start_s, sustained.end_s) == (first_sustained, result.duration_s)
    assert [row.index for row in result.outcomes if row.phase is Phase.WARMUP] == [0, 1, 2, 3]


def test_closed_loop_by_time_offers_nothing_after_its_end() -> None:
    result, mock = run_against_mock(closed_plan(200, concurrency=3, end_s=0.5))
    assert 4 <= len(result.outcomes) <= 15
    assert len(mock.seen) == len(result.outcomes)
    assert result.counts()[RequestClass.OK] == len(result.outcomes)
    assert all(row.intended_s < 0.5 for row in result.outcomes)
    assert result.duration_s < 5.0


def test_closed_loop_by_time_ends_where_its_requests_are_used_up() -> None:
    result, _ = run_against_mock(closed_plan(6, concurrency=2, end_s=20.0))
    assert result.counts()[RequestClass.OK] == 6
    ends_s = sorted(row.ended_s for row in result.outcomes if row.ended_s is not None)
    (span,) = result.phases
    # The last two are under way, and the first of them ends: from then on there are not two any more.
    assert (result.ended, span.start_s, span.end_s) == (Ended.USED_UP, 0.0, ends_s[4])
    full, _ = run_against_mock(closed_plan(200, concurrency=2, end_s=0.4))
    assert (full.ended, full.phases[-1].end_s) == (Ended.PLAN, 0.4)


def test_requests_used_up_in_the_warm_up_leave_the_phases_as_planned() -> None:
    spans = [PhaseSpan(Phase.WARMUP, 0.0, 10.0), PhaseSpan(Phase.SUSTAINED, 10.0, 20.0)]
    result, _ = run_against_mock(replace(closed_plan(2, concurrency=1, end_s=20.0), phases=spans))
    assert (result.ended, result.phases) == (Ended.USED_UP, spans)
    assert {row.phase for row in result.outcomes} == {Phase.WARMUP}


def test_users_whose_requests_fail_at_once_do_not_use_up_the_plan() -> None:
    result, _ = run_against_mock(closed_plan(1000, concurrency=2, end_s=1.0), "status_503")
    # A refusal takes 10 ms, and the rests after it 10, 20, 40, ... ms: some 16 requests, and some 200 without rests.
    assert 4 <= len(result.outcomes) <= 40
    assert result.ended is Ended.PLAN
    number, _ = run_against_mock(closed_plan(40, concurrency=2), "status_503")
    assert number.duration_s < 5.0, "by number of requests nobody rests"


def test_nobody_goes_on_before_the_end_of_an_answer_is_known() -> None:
    talk, _ = run_against_mock(conversation(2), "left_open")
    first, second = talk.outcomes
    assert first.last_token_s is not None
    assert second.intended_s >= first.last_token_s + LEFT_OPEN_S
    assert (second.dispatched_s or 0.0) - second.intended_s < LEFT_OPEN_S / 2
    slots, _ = run_against_mock(closed_plan(2, concurrency=1, end_s=20.0), "left_open")
    before, after = slots.outcomes
    assert after.intended_s >= (before.ended_s or 0.0) + LEFT_OPEN_S


def test_session_keeps_its_slot_to_its_end() -> None:
    result, mock = run_against_mock(closed_plan(4, concurrency=2, turns=3))
    assert mock.open_peak == 2
    assert result.counts()[RequestClass.OK] == 12
    order = [row.session for row in sorted(result.outcomes, key=lambda row: row.sent_s or 0.0)]
    assert set(order[:6]) == {"s0", "s1"}


@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_turn_holds_the_conversation_with_the_answers_as_they_came(endpoint: Endpoint) -> None:
    behaviour = "plain" if endpoint is Endpoint.COMPLETIONS else "role_first"
    result, mock = run_against_mock(conversation(3, think_s=0.2), behaviour, endpoint=endpoint)
    assert result.counts()[RequestClass.OK] == 3
    rows, bodies = result.outcomes, [seen.body for seen in mock.seen]
    if endpoint is Endpoint.COMPLETIONS:
        answer = "".join(f"w{FIRST_S + place * GAP_S} " for place in range(TOKENS))
        assert bodies[2]["prompt"] == f"question 0 {answer}question 1 {answer}question 2 "
    else:
        assert bodies[2]["messages"] == [
            {"role": "user", "content": "question 0 "},
            {"role": "assistant", "content": "wwww"},
            {"role": "user", "content": "question 1 "},
            {"role": "assistant", "content": "wwww"},
            {"role": "user", "content": "question 2 "},
        ]
    for before, row in pairwise(rows):
        assert row.intended_s == pytest.approx((before.last_token_s or 0.0) + 0.2)
        assert row.dispatched_s is not None
        assert row.dispatched_s >= row.intended_s
    assert [(row.session, row.turn) for row in rows] == [("s", 0), ("s", 1), ("s", 2)]


def test_prompt_of_a_turn_counts_the_whole_conversation_where_the_server_does_not() -> None:
    result, _ = run_against_mock(conversation(3), "no_usage")
    assert [row.prompt_tokens for row in result.outcomes] == [2, 2 + 4 + 2, 8 + 4 + 2]


def test_whole_answers_make_conversations_too() -> None:
    result, mock = run_against_mock(conversation(2, think_s=0.1), "one_json", streaming=False)
    assert mock.seen[1].body["prompt"] == "question 0 five words are in herequestion 1 "
    first, second = result.outcomes
    assert second.intended_s == pytest.approx((first.ended_s or 0.0) + 0.1)


def test_turns_after_one_that_failed_are_dropped() -> None:
    result, mock = run_against_mock(conversation(4, think_s=0.1), ["plain", "status_503", "plain", "plain"])
    rows = result.outcomes
    assert [row.request_class for row in rows] == [RequestClass.OK, RequestClass.SHED] + [RequestClass.DROPPED] * 2
    assert [row.error for row in rows[2:]] == [CONVERSATION_OVER] * 2
    ended_s = rows[1].ended_s or 0.0
    assert [row.intended_s for row in rows[2:]] == pytest.approx([ended_s + 0.1, ended_s + 0.2])
    assert [row.attempts for row in rows] == [1, 1, 0, 0]
    assert len(mock.seen) == 2


def test_turns_that_would_come_after_the_end_are_not_offered() -> None:
    result, mock = run_against_mock(conversation(4, think_s=0.3, end_s=0.6))
    assert len(mock.seen) == len(result.outcomes) == 2
    broken, _ = run_against_mock(conversation(4, think_s=0.3, end_s=0.6), ["plain", "status_503"])
    assert [row.request_class for row in broken.outcomes] == [RequestClass.OK, RequestClass.SHED]


def test_sessions_need_text() -> None:
    plan = conversation(2)
    plan.requests[0] = replace(plan.requests[0], prompt=(1, 2))
    with pytest.raises(ValueError, match="request 0 of a session has token ids"):
        run_against_mock(plan)


def test_retries_count_from_the_intended_time_and_end_in_the_class_of_the_last_attempt() -> None:
    behaviours = {"attempts": ["status_503", "status_500", "plain"]}
    result, mock = run_against_mock(even_plan(2), behaviours, retries=2)
    assert len(mock.seen) == 6
    for row in result.outcomes:
        assert (row.request_class, row.attempts, row.status) == (RequestClass.OK, 3, 200)
        # 1.5 s by the 503's retry-after-ms, then 0.75 to 1 s of backing off.
        assert row.ttft_s is not None
        assert row.ttft_s > 1.5 + 0.75 + FIRST_S - EARLY_S
        # The first attempt is the one that is called sent: both waits came after it.
        assert row.sent_s is not None
        assert row.first_token_s is not None
        assert row.first_token_s - row.sent_s > 1.5 + 0.75 + FIRST_S - EARLY_S
    assert result.amplification == 3.0


def test_retries_end_with_the_last_refusal_and_with_the_cut_off() -> None:
    spent, mock = run_against_mock(even_plan(1), "status_500", retries=1)
    assert (spent.outcomes[0].request_class, spent.outcomes[0].attempts) == (RequestClass.FAILED, 2)
    assert len(mock.seen) == 2
    late, mock = run_against_mock(even_plan(1), "status_429", retries=5, drain_s=0.3)
    assert (late.outcomes[0].request_class, late.outcomes[0].attempts) == (RequestClass.SHED, 1)
    assert len(mock.seen) == 1
    cut, _ = run_against_mock(even_plan(1), {"attempts": ["status_500", "silent"]}, retries=1, drain_s=1.5)
    assert (cut.outcomes[0].request_class, cut.outcomes[0].attempts) == (RequestClass.UNFINISHED, 2)


def test_without_retries_nothing_is_sent_twice() -> None:
    result, mock = run_against_mock(even_plan(3), "closed_at_once")
    assert len(mock.seen) == 3
    assert result.amplification == 1.0


def test_run_starts_at_the_given_instant() -> None:
    async def main() -> tuple[LoadResult, MockServer, float]:
        async with mock_server() as mock:
            start_s = monotonic() + 0.4
            options = LoadOptions(run_id="r", extra_body={"mock": "plain"})
            return await run_load(Target(mock.url), even_plan(3), options, start_s=start_s), mock, start_s

    result, mock, start_s = run(main())
    for row in result.outcomes:
        arrived_s = mock.by_id()[row.request_id].arrived_s
        assert arrived_s >= start_s + row.intended_s
        assert row.sent_s is not None
        assert row.headers_s is not None
        assert start_s + row.sent_s <= arrived_s <= start_s + row.headers_s


def test_start_that_is_past_shows_as_lag() -> None:
    async def main() -> LoadResult:
        async with mock_server() as mock:
            options = LoadOptions(extra_body={"mock": "plain"})
            return await run_load(Target(mock.url), even_plan(3), options, start_s=monotonic() - 0.5)

    result = run(main())
    assert result.counts()[RequestClass.OK] == 3
    assert all((row.dispatched_s or 0.0) - row.intended_s > 0.45 for row in result.outcomes)
