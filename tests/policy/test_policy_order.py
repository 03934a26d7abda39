"""Who is next: ageing is bounded, short ones first without limits, tenants share, margins are learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_views import NOW_S, Row, columns, line, view

from setpoint.policy.margin import LEAST, MISS_RATE, MOST, LearnedMargin
from setpoint.policy.order import BATCH_PATIENCE_S, PATIENCE_S, Serving, most_urgent, next_aged, urgency_keys
from setpoint.policy.setpoint import SetpointPolicy
from setpoint.policy.tenants import MOST_TENANTS, OUTPUT_WEIGHT, TenantCounters
from setpoint.policy.views import BATCH


def order(rows: list[Row], tenants: TenantCounters | None = None, serving: Serving | None = None) -> list[int]:
    every = columns(rows)
    first = next_aged(every, serving or Serving(), now_s=NOW_S)
    keys = urgency_keys(every, now_s=NOW_S, token_s=1e-3, tenants=tenants, first=first)
    found = most_urgent(keys)
    return [int(every.ids[i]) for i in found]


def test_without_limits_short_ones_go_first_and_waiting_makes_anybody_urgent() -> None:
    assert order([Row(1, NOW_S - 1, prefill=1000), Row(2, NOW_S - 0.5, prefill=50)]) == [2, 1]
    assert order([Row(1, NOW_S - 20, prefill=1000), Row(2, NOW_S - 0.5, prefill=50)]) == [1, 2]


def test_no_deadline_is_a_late_deadline() -> None:
    due = Row(1, NOW_S, NOW_S + 1.0, prefill=10)
    assert order([Row(2, NOW_S - 1, prefill=10), due]) == [1, 2]
    assert order([Row(2, NOW_S - PATIENCE_S, prefill=10), due]) == [2, 1]


def test_a_flood_that_nobody_waits_for_in_time_does_not_go_before_who_has_a_deadline() -> None:
    """Seen by reading: all that had waited for half a minute went first, and streams with deadlines never."""
    old = [Row(i, NOW_S - PATIENCE_S - 10 + i, prefill=10) for i in range(5)]
    due = Row(9, NOW_S, NOW_S + 1.0, prefill=10)
    assert order([*old, due]) == [0, 9, 1, 2, 3, 4]
    assert order([*old, due], serving=Serving(aged=True)) == [9, 0, 1, 2, 3, 4], "one at a time"
    under_way = replace(old[3], context=5)
    others = [each for each in old if each.id != 3]
    assert order([under_way, *others, due], serving=Serving(prompts=1))[:2] == [3, 9], "the prompt that is under way"
    assert order([*old, replace(due, deadline_s=NOW_S + 2 * PATIENCE_S)])[-1] == 9


def test_who_has_no_limits_joins_only_as_far_as_those_allow_that_are_read() -> None:
    policy = SetpointPolicy(max_running=32, token_budget=512, prefill_floor_tokens=16, max_waiting=100, model=line(0.01, 1e-3))
    reader = Row(1, deadline_s=NOW_S + 0.05, context=50, emitted=3, gap_s=0.05)
    flood = [Row(i, NOW_S - 1, prefill=20) for i in range(10, 60)]

    def joining(running: list[Row], waiting: list[Row] = flood) -> int:
        return sum(i >= 10 for i in policy.plan(view(waiting, running)).order)

    assert 0 < joining([reader]) <= 27, "as many as the gap allows, less its margin"
    assert joining([]) == 32
    tight = replace(reader, gap_s=0.016, deadline_s=NOW_S + 0.016)
    assert joining([tight]) == 0
    aged = [replace(row, arrived_s=NOW_S - PATIENCE_S) for row in flood]
    assert joining([tight], aged) == 1
    served = Row(10, NOW_S - PATIENCE_S, context=50, emitted=3)
    assert sum(i > 10 for i in policy.plan(view(aged[1:], [tight, served])).order) == 0, "one at a time"


def test_who_is_put_behind_goes_last_inside_its_class_and_not_out_of_it() -> None:
    """Seen: two counters that stood alike put a long prompt of the large tenant before a short one of the small."""
    counters = TenantCounters()
    rows = [
        Row(1, NOW_S - 1, NOW_S + 1.0, prefill=200, tenant=1),
        Row(2, NOW_S, NOW_S + 2.0, prefill=50, tenant=2),
        Row(3, NOW_S - 2, NOW_S + 0.5, prefill=10, tenant=2, request_class=BATCH),
    ]
    counters.present([1, 2])
    assert order(rows, counters) == [1, 2, 3]
    counters.put_behind(frozenset([1]))
    assert order(rows, counters) == [2, 1, 3]
    counters.put_behind(frozenset())
    assert order(rows, counters) == [1, 2, 3]


def test_of_the_batch_class_only_the_oldest_is_served_first_in_the_end() -> None:
    old = [Row(i, NOW_S - BATCH_PATIENCE_S - 10 + i, prefill=10, request_class=BATCH) for i in range(3)]
    assert order([*old, Row(9, NOW_S, NOW_S + 1.0, prefill=10)]) == [0, 9, 1, 2]


def test_batch_requests_leave_room_beside_interactive_ones() -> None:
    policy = SetpointPolicy(max_running=8, token_budget=512, prefill_floor_tokens=16, max_waiting=100, model=line(0.01, 1e-3))
    reader = Row(1, deadline_s=NOW_S + 0.1, context=50, emitted=3, gap_s=0.1)
    batch = [Row(i, prefill=20, request_class=BATCH) for i in range(10, 30)]
    beside = [i for i in policy.plan(view(batch, [reader])).order if i >= 10]
    assert 0 < len(beside) < 7
    alone = [i for i in policy.plan(view(batch, [], now_s=NOW_S + 100)).order if i >= 10]
    assert len(alone) == 8


def test_batch_requests_leave_room_where_an_interactive_one_ended_just_now() -> None:
    """Seen: in the moment in which nothing ran, batch requests took every place."""
    policy = SetpointPolicy(max_running=8, token_budget=512, prefill_floor_tokens=16, max_waiting=100, model=line(0.01, 1e-3))
    reader = Row(1, deadline_s=NOW_S + 0.1, context=50, emitted=3, gap_s=0.1)
    batch = [Row(i, prefill=20, request_class=BATCH) for i in range(10, 30)]
    policy.plan(view([], [reader]))
    between = [i for i in policy.plan(view(batch, [], now_s=NOW_S + 1)).order if i >= 10]
    assert 0 < len(between) < 7


def test_tenants_take_turns_whoever_sends_more() -> None:
    counters = TenantCounters()
    counters.present({1, 2})
    rows = [Row(i, NOW_S - 5 + 0.1 * i, NOW_S + 1, prefill=100, tenant=1) for i in range(6)]
    rows += [Row(10 + i, NOW_S - 1, NOW_S + 3, prefill=100, tenant=2) for i in range(2)]
    assert order(rows, counters)[:4] in ([0, 10, 1, 11], [0, 10, 1, 11])
    counters.charge(1, prompt_tokens=150)
    assert order(rows, counters)[:3] == [10, 11, 0]


def test_output_weighs_more_and_idleness_saves_no_credit() -> None:
    counters = TenantCounters()
    counters.present({1})
    counters.charge(1, prompt_tokens=10, output_tokens=100)
    assert counters.level(1) == 10 + OUTPUT_WEIGHT * 100
    counters.present({1, 2})
    assert counters.level(2) == counters.level(1)
    counters.charge(2, prompt_tokens=50)
    counters.present({1})
    counters.charge(1, output_tokens=500)
    counters.present({1, 2})
    assert counters.level(2) == counters.level(1)


def test_the_number_of_tenants_is_bounded() -> None:
    counters = TenantCounters()
    for tenant in range(3 * MOST_TENANTS):
        counters.present({tenant})
        counters.charge(tenant, prompt_tokens=1)
    assert len(counters._served) <= MOST_TENANTS + 1


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.2))
def test_in_the_long_run_few_forecasts_are_missed_by_more_than_the_margin(seed: int, scale: float) -> None:
    dice, margin, missed = np.random.default_rng(seed), LearnedMargin(), 0
    for error in (scale * np.abs(dice.standard_normal(6000))).tolist():
        missed += error > margin.share
        margin.learn(forecast_s=0.9, actual_s=0.9 + error, limit_s=1.0)
    assert LEAST <= margin.share <= MOST
    assert missed / 6000 <= 3 * MISS_RATE + 0.01


def test_what_was_far_from_a_refusal_teaches_nothing() -> None:
    margin = LearnedMargin()
    margin.learn(forecast_s=0.1, actual_s=0.5, limit_s=1.0)
    assert margin.share == pytest.approx(LearnedMargin().share)
    margin.learn(forecast_s=0.1, actual_s=1.5, limit_s=1.0)
    assert margin.share > LearnedMargin().share


def test_new_tenants_do_not_keep_an_old_one_out_for_ever() -> None:
    counters = TenantCounters()
    counters.present([10])
    counters.charge(1, prompt_tokens=1000)
    old = [Row(1, NOW_S - PATIENCE_S, prefill=10, tenant=1), Row(2, NOW_S - PATIENCE_S, prefill=10, tenant=1)]
    new = [Row(10 + number, NOW_S - 1, prefill=10, tenant=10 + number) for number in range(5)]
    counters.present([row.tenant for row in (*old, *new)])
    found = order([*new, *old], counters)
    assert found[0] == 1
    assert found[-1] == 2, "one at a time"
    counters.under_way(np.array([1], dtype=np.int64))
    assert order([*new, *old], counters)[-2:] == [1, 2], "who has something running waits for its turn"
    counters.under_way(np.zeros(0, dtype=np.int64))
    counters.put_behind(frozenset([1]))
    assert order([*new, *old], counters)[-2:] == [1, 2]


def test_an_aged_batch_request_goes_before_every_tenant() -> None:
    counters = TenantCounters()
    counters.charge(1, prompt_tokens=1000)
    aged = Row(1, NOW_S - BATCH_PATIENCE_S, prefill=10, tenant=1, request_class=BATCH)
    assert order([Row(2, NOW_S, prefill=10, tenant=2), aged], counters) == [1, 2]
