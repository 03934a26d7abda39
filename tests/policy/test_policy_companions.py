"""Several answers to one prompt: places for all of them or for none, and nobody counted who is not there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from policy_views import NOW_S, Row, columns, line, system, view

from setpoint.policy.decisions import Admit, Reject
from setpoint.policy.setpoint import SetpointPolicy
from setpoint.policy.views import BATCH, INTERACTIVE, RequestLimits, RequestView, SystemView

MANY = RequestView(90, NOW_S, NOW_S, 60, 60, 300, limits=RequestLimits(ttft_s=1.0), answers=8, fingerprint=5)


def policy(*, max_waiting: int = 1000) -> SetpointPolicy:
    return SetpointPolicy(
        max_running=32, token_budget=512, prefill_floor_tokens=16, max_waiting=max_waiting, model=line(0.01, 1e-4, 5e-4)
    )


def decoding(count: int) -> SystemView:
    rows = [Row(number, NOW_S - 1, context=60, emitted=5, cap=400) for number in range(count)]
    return replace(system(running=count, context=60 * count), running_columns=columns(rows))


@pytest.mark.parametrize(("running", "admitted"), [(24, True), (25, False), (31, False)])
def test_all_answers_have_places_in_time_or_the_first_is_refused(running: int, admitted: bool) -> None:
    """Seen: with one place free the first was let in, and the others were dropped at their deadline with its work."""
    judge = policy()
    verdict = judge.admit(MANY, decoding(running))
    assert isinstance(verdict, Admit if admitted else Reject), verdict
    assert isinstance(judge.admit(replace(MANY, request_id=91, answers=1, fingerprint=6), decoding(23)), Admit)


def test_an_answer_let_in_with_the_first_is_late_at_worst() -> None:
    judge = policy()
    first = replace(MANY, limits=RequestLimits(ttft_s=0.1))
    idle = replace(system(), running_columns=columns([]), waiting_columns=columns([]))
    assert isinstance(judge.admit(first, idle), Admit)
    running = [Row(90, NOW_S, context=60, emitted=1)]
    beside = replace(system(running=1, context=60), running_columns=columns(running))
    sibling = replace(first, request_id=91, answers=0)
    assert isinstance(judge.admit(sibling, beside), Admit)
    late = Row(91, NOW_S, NOW_S + 0.1, prefill=1)
    other = Row(92, NOW_S, NOW_S + 0.1, prefill=1)
    readers = [Row(number, NOW_S - 1, context=60, emitted=5) for number in range(32)]
    assert judge.plan(view([late, other], readers, now_s=NOW_S + 0.2)).shed == (92,)


@pytest.mark.parametrize("request_class", [INTERACTIVE, BATCH])
def test_more_answers_than_the_queue_holds_are_let_in_where_nobody_waits(request_class: int) -> None:
    """Seen: with a queue of 16, sixteen answers were let in only at an instant of complete idleness."""
    many = replace(MANY, answers=16, request_class=request_class)
    assert isinstance(policy(max_waiting=16).admit(many, decoding(1)), Admit)
    waits = replace(decoding(1), waiting=1)
    refused = policy(max_waiting=16).admit(many, waits)
    assert isinstance(refused, Reject)
    assert refused.reason.code == "queue_full"


def test_answers_of_a_request_that_has_gone_do_not_count_on_an_idle_machine() -> None:
    """Seen: a client that left before its other answers came kept the second of two others out, on an idle machine."""
    judge = policy()
    idle = replace(system(), running_columns=columns([]), waiting_columns=columns([]))
    assert isinstance(judge.admit(replace(MANY, answers=16), idle), Admit)
    assert judge.companions.count == 15
    assert isinstance(judge.admit(replace(MANY, request_id=92, answers=1, fingerprint=7), idle), Admit)
    assert judge.companions.count == 0
