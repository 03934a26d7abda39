"""Requests without limits beside those that have some: none starves, and none keeps the others out."""

from __future__ import annotations

from dataclasses import replace

from policy_views import NOW_S, Row, columns, line, system, view

from setpoint.policy.decisions import Admit
from setpoint.policy.order import PATIENCE_S
from setpoint.policy.setpoint import SetpointPolicy
from setpoint.policy.views import RequestLimits, RequestView

GAP_S = 0.025


def policy(*, places: int = 32) -> SetpointPolicy:
    return SetpointPolicy(
        max_running=places, token_budget=512, prefill_floor_tokens=16, max_waiting=1000, model=line(0.01, 1e-4, 5e-4)
    )


def test_a_long_answer_whose_first_token_was_due_keeps_nobody_from_going_first() -> None:
    """Seen: a stream that limits its first token only has no deadline after it, and passed for one that had waited too long."""
    judge = policy(places=4)
    streams = [Row(number, NOW_S - 2 * PATIENCE_S, context=60, emitted=50) for number in range(3)]
    due = Row(8, NOW_S - 1, NOW_S + 1.0, prefill=10)
    old = Row(9, NOW_S - PATIENCE_S, prefill=10)
    assert judge.plan(view([due, old], streams)).order == (9,)
    served = replace(old, prefill=0, context=10, emitted=1)
    other = replace(old, id=10)
    assert judge.plan(view([due, other], [*streams[:2], served])).order == (8,), "one at a time"
    assert judge.plan(view([due, other], streams)).order == (10,), "the first has ended"


def test_a_flood_without_limits_that_waits_keeps_no_stream_out() -> None:
    """Seen: ten that were held back counted as if they joined, and whoever limits gaps was refused from then on."""
    judge = policy()
    readers = [Row(number, NOW_S - 1, NOW_S + GAP_S, context=60, emitted=5, gap_s=GAP_S) for number in range(8)]
    flood = [Row(100 + number, NOW_S - 1, prefill=5, cap=400) for number in range(60)]
    seen = replace(
        system(waiting=60, running=8, uncached=300, context=480),
        running_columns=columns(readers),
        waiting_columns=columns(flood),
    )
    stream = RequestView(9, NOW_S, NOW_S, 50, 50, 40, limits=RequestLimits(itl_s=GAP_S))
    verdict = judge.admit(stream, seen)
    assert isinstance(verdict, Admit), verdict
    whole = RequestView(10, NOW_S, NOW_S, 50, 50, 40, streaming=False, limits=RequestLimits(e2e_s=2 * PATIENCE_S))
    assert isinstance(judge.admit(whole, seen), Admit)


def test_who_waits_with_limits_has_its_place_before_those_without() -> None:
    judge = policy()
    readers = [Row(number, NOW_S - 1, NOW_S + GAP_S, context=60, emitted=5, gap_s=GAP_S) for number in range(4)]
    flood = [Row(100 + number, NOW_S - 1, prefill=50, cap=40) for number in range(60)]
    streams = [Row(50 + number, NOW_S, prefill=10, gap_s=GAP_S) for number in range(5)]
    alone = [i for i in judge.plan(view(flood, readers)).order if i >= 100]
    beside = judge.plan(view([*flood, *streams], readers)).order
    assert sum(50 <= i < 60 for i in beside) == 5
    assert sum(i >= 100 for i in beside) == len(alone) - 5
