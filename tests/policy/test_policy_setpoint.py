"""``setpoint``: order by deadline, prefill sized by slack, the doomed dropped, progress whatever happens."""

from __future__ import annotations

from dataclasses import replace
from math import inf, isinf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from policy_views import NOW_S, Row, columns, line, result, system, view, views

from setpoint.policy.decisions import Admit, Reject, StepPlan, StepWork
from setpoint.policy.doomed import SHORT, latest_first_s
from setpoint.policy.forecast import Machine
from setpoint.policy.length_share import START
from setpoint.policy.lengths import OutputLengths
from setpoint.policy.order import PATIENCE_S
from setpoint.policy.setpoint import DEADLINE_SEEN_S, STEP_MISS_REST, SetpointPolicy
from setpoint.policy.slack import MARGIN, chunk_context_tokens, decode_work, prefill_budget, prefill_floor, step_slack_s
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.unbound import without_limits
from setpoint.policy.views import BATCH, INTERACTIVE, RequestLimits, RequestView, StepView, SystemView, taken

# 10 ms a step, 1 ms a token, 0.1 ms a sequence.
MACHINE = (0.01, 1e-3, 1e-4)


def policy(*, places: int = 8, budget: int = 512, floor: int = 16, model: StepTimeModel | None = None) -> SetpointPolicy:
    return SetpointPolicy(
        max_running=places,
        token_budget=budget,
        prefill_floor_tokens=floor,
        max_waiting=100,
        model=model or line(*MACHINE),
    )


def plan(waiting: list[Row], running: list[Row] | None = None, *, places: int = 8) -> StepPlan:
    return policy(places=places).plan(view(waiting, running))


def reader(due_in_s: float, **fields: float) -> Row:
    return Row(**{"id": 0, "context": 100, "emitted": 5, **fields}, deadline_s=NOW_S + due_in_s)  # type: ignore[arg-type]


def test_earliest_deadline_first_then_least_work_then_arrival() -> None:
    waiting = [
        Row(1, NOW_S - 4, NOW_S + 3.0, prefill=50),
        Row(2, NOW_S - 3, NOW_S + 2.0, prefill=90),
        Row(3, NOW_S - 2, NOW_S + 2.0, prefill=40),
        Row(4, NOW_S - 1, inf, prefill=10),
        Row(5, NOW_S, inf, prefill=5),
    ]
    assert plan(waiting).order == (3, 2, 1, 4, 5)
    assert plan(waiting, places=2).order == (3, 2)


def test_a_tenant_with_a_little_running_all_the_time_saves_up_no_credit() -> None:
    """Seen: while it never had nothing running, its counter stood still, and its next burst went before everybody."""
    judge = policy()
    heavy = [Row(number, NOW_S, prefill=50, tenant=1) for number in range(3)]
    judge.plan(view(heavy, [Row(9, context=10, emitted=3, tenant=2)]))
    judge.tenants.charge(1, prompt_tokens=100_000)
    burst = [Row(10 + number, NOW_S, prefill=50, tenant=2) for number in range(3)]
    order = judge.plan(view([*heavy, *burst], [Row(9, context=10, emitted=3, tenant=2)])).order
    assert sorted(order[:2]) != [10, 11], "the burst goes first as a whole"
    assert {0, 10} == set(order[:2]), "they take turns"


def test_interactive_goes_before_batch_even_beside_prompts_under_way() -> None:
    """Seen: with a prompt under way the class was forgotten and a batch request with a nearer deadline came first."""
    batch = Row(1, NOW_S - 2, NOW_S + 1.0, prefill=20, request_class=BATCH)
    interactive = Row(2, NOW_S - 1, NOW_S + 5.0, prefill=20)
    under_way = Row(3, NOW_S - 3, NOW_S + 9.0, context=10, prefill=30)
    assert plan([batch, interactive]).order == (2, 1)
    assert plan([batch, interactive], [under_way]).order == (2, 3, 1)


@given(views(), st.integers(1, 8))
def test_order_is_by_class_then_deadline(step: StepView, places: int) -> None:
    made = policy(places=places).plan(step)
    rank = {
        i: (int(kind), step.now_s + PATIENCE_S if isinf(due_s) else float(due_s))
        for part in (step.waiting, step.running)
        for i, kind, due_s in zip(part.ids.tolist(), part.request_class, part.deadline_s, strict=True)
    }
    ranks = [rank[i] for i in made.order]
    assert ranks == sorted(ranks)
    joining = [i for i in made.order if i in step.waiting.ids]
    left = [i for i in step.waiting.ids.tolist() if i not in made.order and i not in made.shed]
    room = max(0, places - len(step.running))
    unlimited = set(step.waiting.ids[without_limits(step.waiting)].tolist())
    bound = [i for i in left if rank[i][0] == INTERACTIVE and i not in unlimited]
    assert len(joining) <= room
    assert len(joining) == room or not bound, "batch requests and those without limits alone may be held back"
    assert joining or left == [] or room == 0 or len(step.running), "with nothing else to do they are not"
    assert all(rank[a] <= rank[b] for a in joining for b in left)


@given(views())
def test_the_short_way_of_a_step_without_prompts_decides_as_the_long_one(step: StepView) -> None:
    quiet = replace(step, waiting=view().waiting, running=taken(step.running, np.flatnonzero(step.running.prefill_tokens == 0)))
    short = policy().plan(quiet)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("setpoint.policy.setpoint._nobody_asks", lambda _: False)
        long = policy().plan(quiet)
    assert short == replace(long, prefill_budget_tokens=short.prefill_budget_tokens, reason=short.reason)
    assert short.reason.code == "no_prompts"


@given(views(), st.integers(0, 5))
def test_the_latest_useful_moment_is_the_deadline_less_what_is_owed(step: StepView, learned: int) -> None:
    lengths = OutputLengths()
    for _ in range(learned):
        lengths.ended(INTERACTIVE, cap_tokens=100, emitted_tokens=50)
    machine = Machine(0.01, 1e-3, 1e-4, inf, 16, 512)
    decodes = int((step.running.prefill_tokens == 0).sum())
    owed = np.where(step.waiting.tokens_to_deadline > 1, lengths.remaining(step.waiting, SHORT), 1.0)
    plain = step.waiting.deadline_s - step.now_s - (owed - 1) * machine.step_s(decodes + 1, 0)
    plain[step.waiting.emitted_tokens > 0] = inf
    assert latest_first_s(step, machine, lengths) == pytest.approx(plain)


@given(views())
def test_who_would_be_late_alone_is_shed_and_who_is_read_or_due_much_later_never(step: StepView) -> None:
    made = policy().plan(step)
    waiting = step.waiting
    backlog = int(step.running.prefill_tokens.sum() + waiting.prefill_tokens.sum())
    everything_s = (backlog / 16 + 200) * line(*MACHINE).predict_s(StepWork(16 + 16, 16, 0, 0))
    for index, request_id in enumerate(waiting.ids.tolist()):
        alone_s = line(*MACHINE).predict_s(StepWork(int(waiting.prefill_tokens[index]), 1, 0, 0))
        if waiting.emitted_tokens[index] or step.now_s + everything_s < waiting.deadline_s[index]:
            assert request_id not in made.shed
        elif step.now_s + (alone_s if len(step.running) else 0.0) > waiting.deadline_s[index]:
            assert request_id in made.shed
    if not len(step.running) and (waiting.deadline_s > step.now_s).any():
        assert len(made.shed) < len(waiting), "an idle machine turns everybody away"


def test_doomed_by_example() -> None:
    in_time = Row(1, deadline_s=NOW_S + 0.112, prefill=100)  # 10 ms + 0.1 ms + 100 ms
    doomed = Row(2, deadline_s=NOW_S + 0.108, prefill=100)
    preempted = Row(3, deadline_s=NOW_S - 1, prefill=100, emitted=4)
    assert plan([in_time, doomed, preempted]).shed == (2,)


def test_an_idle_machine_tries_the_most_urgent_though_the_forecast_says_late() -> None:
    """Seen: a model that thought every step too slow dropped everybody, saw no step, and so never learned better."""
    nearly, sooner = Row(1, deadline_s=NOW_S + 0.05, prefill=100), Row(2, deadline_s=NOW_S + 0.04, prefill=100)
    over = Row(3, deadline_s=NOW_S - 0.01, prefill=100)
    made = plan([nearly, sooner, over])
    assert (made.order, set(made.shed)) == ((2,), {1, 3})
    assert set(plan([nearly, sooner, over], [Row(4, context=10, emitted=1)]).shed) == {1, 2, 3}, "not beside others"
    assert plan([over]).shed == (3,), "what is over is over"


@given(st.floats(-1, 1), st.floats(0, 1), st.integers(1, 8), st.integers(0, 1000), st.floats(0, 2000))
def test_the_budget_grows_with_the_slack_and_keeps_the_step_within_it(
    slack_s: float, more_s: float, decodes: int, context: int, chunk_context: float
) -> None:
    model = StepTimeModel((0.01, 1e-3, 1e-4, 1e-7, 1e-8))
    work = StepWork(decodes, decodes, decodes * context, decodes * context)
    fits = prefill_budget(slack_s, work, model, context_tokens=chunk_context)
    assert 0 <= fits <= prefill_budget(slack_s + more_s, work, model, context_tokens=chunk_context)
    if fits:
        whole = StepWork(
            decodes + fits,
            decodes + 1,
            work.kv_tokens_read + int(chunk_context),
            work.attention_products + int(fits * chunk_context),
        )
        assert model.predict_s(whole) <= slack_s * (1 - MARGIN) + 1e-9
        one_more = replace(
            whole, tokens=whole.tokens + 1, attention_products=work.attention_products + int((fits + 1) * chunk_context) + 1
        )
        assert model.predict_s(one_more) > slack_s * (1 - MARGIN) - 1e-6


@given(views(), st.floats(0, 3))
def test_plans_give_no_less_prefill_when_everybody_has_more_time(step: StepView, more_s: float) -> None:
    patient = replace(step, running=replace(step.running, deadline_s=step.running.deadline_s + more_s))
    lost = step.running.deadline_s <= step.now_s
    if lost.any():
        return  # more time may bring a lost answer back among those that count
    less, more = policy(budget=100_000).plan(step), policy(budget=100_000).plan(patient)
    assert less.prefill_budget_tokens <= more.prefill_budget_tokens


@pytest.mark.parametrize(
    ("due_in_s", "budget", "code"),
    [
        (0.1, 63, "slack"),  # 0.075 - 0.010 - 0.001 (a decode) - 0.0002 (two sequences) = 0.0638 s at 1 ms a token
        (0.03, 16, "floor"),
        (-5.0, 511, "nothing_at_risk"),  # late already, with no gap to keep: nothing can be saved by holding back
        (9.0, 511, "slack_ample"),
        (inf, 511, "nothing_at_risk"),
    ],
)
def test_the_budget_by_example(due_in_s: float, budget: int, code: str) -> None:
    made = plan([Row(1, prefill=600)], [reader(due_in_s)])
    assert (made.prefill_budget_tokens, made.reason.code) == (budget, code)


def test_an_answer_due_as_a_whole_shares_its_time_among_its_tokens() -> None:
    assert step_slack_s(view(running=[reader(1.0, owed=10)]), 0.1) == pytest.approx(0.1), "no more than it needs"
    assert step_slack_s(view(running=[reader(1.0, owed=10), reader(0.05)])) == pytest.approx(0.05)


def test_an_answer_due_as_a_whole_may_spend_on_one_step_what_the_others_do_not_need() -> None:
    # 10 steps of 20 ms are needed: half of the other 0.8 s, on top of a step.
    assert step_slack_s(view(running=[reader(1.0, owed=10)]), 0.02) == pytest.approx(0.42)
    assert step_slack_s(view(running=[reader(1.0, owed=1)]), 0.02) == pytest.approx(1.0)


def test_a_prompt_under_way_has_no_reader() -> None:
    assert isinf(step_slack_s(view(running=[Row(1, context=5, prefill=5, deadline_s=NOW_S)]))), "a prompt has no reader yet"


def test_a_lost_answer_does_not_hold_up_those_that_can_be_saved() -> None:
    """Seen: one answer past its E2E limit held the prefill of everybody at the floor until it ended."""
    lost = reader(-0.001, owed=40)
    assert plan([Row(1, prefill=600)], [lost]).reason.code == "nothing_at_risk"
    assert plan([Row(1, prefill=600)], [lost, reader(0.1)]).reason.code == "slack"


@given(views())
def test_the_floor_guarantees_progress(step: StepView) -> None:
    made = policy(floor=16).plan(step)
    assert made.prefill_budget_tokens >= 16
    assert policy(floor=16, budget=4).plan(step).prefill_budget_tokens >= 4


def test_the_least_computed_is_preempted_first() -> None:
    running = [Row(1, context=50, emitted=1), Row(2, context=10, emitted=1), Row(3, context=10, emitted=1), Row(4, context=20)]
    assert plan([], running).preempt_order == (2, 3, 4, 1)


def test_the_context_of_a_chunk_is_that_of_the_prompts_under_way() -> None:
    assert chunk_context_tokens(view()) == 0
    assert chunk_context_tokens(view([Row(1, prefill=100), Row(2, prefill=300)])) == 100
    assert chunk_context_tokens(view([Row(1, prefill=100)], [Row(3, context=1000, prefill=200)])) == 1100


def test_decode_work_counts_the_readers_only() -> None:
    step = view(running=[reader(1.0), reader(1.0, context=300), Row(2, context=40, prefill=9)])
    assert decode_work(step.running) == StepWork(2, 2, 400, 400)
    assert np.isfinite(step_slack_s(step))
    assert INTERACTIVE < BATCH


def test_batch_requests_neither_admitted_nor_refused_lengthen_the_wait_of_interactive_ones() -> None:
    """Seen: what a batch client sent and was refused counted as load that lasts, and as promises to keep room for."""

    def answered(policy: SetpointPolicy, kind: int, at_s: float, *, waiting: int, fingerprint: int) -> Admit | Reject:
        limits = RequestLimits(ttft_s=0.2) if kind == INTERACTIVE else RequestLimits()
        request = RequestView(1, at_s, at_s, 400, 400, 50, limits=limits, request_class=kind, fingerprint=fingerprint)
        return policy.admit(request, replace(system(waiting=waiting, running=8, uncached=4000), now_s=at_s))

    alone, beside = policy(), policy()
    for number in range(100):
        at_s = NOW_S - 20 + number / 5
        kept = answered(beside, BATCH, at_s, waiting=10, fingerprint=2 * number + 1)
        turned_away = answered(beside, BATCH, at_s, waiting=60, fingerprint=2 * number + 2)
        assert isinstance(kept, Admit)
        assert isinstance(turned_away, Reject)
        assert 1.0 <= turned_away.retry_after_s <= 5.0
    refused = answered(alone, INTERACTIVE, NOW_S, waiting=60, fingerprint=1000)
    assert isinstance(refused, Reject)
    assert answered(beside, INTERACTIVE, NOW_S, waiting=60, fingerprint=1000) == refused


def budget_after(overshoots: int, *, good: int = 0) -> int:
    """The prefill budget beside a reader after steps that took longer than the gap allows, then so many that did not."""
    judge = policy()
    step = view([Row(1, prefill=500)], [reader(0.1, gap_s=0.1)])
    work = StepWork(tokens=61, sequences=2, kv_tokens_read=0, attention_products=0)  # 71 ms: what the margin leaves
    for seconds in [0.15] * overshoots + [0.07] * good:
        judge.model = line(*MACHINE)  # what is tested is the margin, not the model
        judge.plan(step)
        judge.observe(result(work, seconds))
    judge.model = line(*MACHINE)
    return judge.plan(step).prefill_budget_tokens


def test_steps_that_outlast_the_gap_of_readers_make_the_chunks_smaller() -> None:
    again = STEP_MISS_REST + 1  # misses before that have one cause
    budgets = [budget_after(count) for count in (0, 1, 1 + again, 1 + 20 * again)]
    assert budgets == sorted(budgets, reverse=True)
    assert len(set(budgets)) == len(budgets)
    assert budgets[-1] >= 16, "prompts progress whatever happened"
    assert budget_after(4, good=100) >= budget_after(4)


def test_steps_without_readers_teach_no_margin() -> None:
    judge = policy()
    step = view([Row(1, prefill=500)], [reader(0.1)])
    for _ in range(20):
        judge.plan(step)
        judge.observe(result(decode_work(step.running), 0.15))
    assert judge.step_margin.share == MARGIN


@pytest.mark.parametrize(
    ("gap_s", "token_s", "floor"),
    [
        (inf, 2e-3, 16),
        (0.06, 0.3e-3, 16),  # 4.8 ms of 60: as configured
        (0.06, 2e-3, 3),  # a tenth of the gap
        (0.06, 0.05, 1),
        (1.0, 2e-3, 16),
    ],
)
def test_on_a_slow_machine_the_least_prefill_leaves_most_of_the_gap(gap_s: float, token_s: float, floor: int) -> None:
    model = line(0.005, token_s, 1e-4)
    assert prefill_floor(16, model, gap_s=gap_s, context_tokens=0.0) == floor


def test_a_gap_that_no_step_keeps_does_not_hold_prompts_up() -> None:
    """Seen: with a limit of a millisecond prompts were computed token by token, and it was missed all the same."""
    assert prefill_floor(16, line(0.015, 2e-3, 1e-4), gap_s=1e-3, context_tokens=0.0) == 16


def reading(*, gap_s: float = 0.06) -> SystemView:
    """One reader, and nobody waits."""
    beside = columns([Row(1, NOW_S - 1, context=60, emitted=5, deadline_s=NOW_S + gap_s, gap_s=gap_s)])
    return replace(system(running=1, context=60), running_columns=beside)


def streaming(number: int, tokens: int) -> RequestView:
    limits = RequestLimits(ttft_s=0.6, itl_s=0.06)
    return RequestView(number, NOW_S, NOW_S, tokens, tokens, 40, limits=limits)


def test_a_reader_does_not_lock_everybody_else_out_of_a_slow_machine() -> None:
    """Seen: 16 tokens took 32 ms; beside one reader with gaps of 60 ms nobody was let in, and half the time nobody ran."""
    verdict = policy(model=line(0.016, 2e-3, 1e-3)).admit(streaming(9, 40), reading())
    assert isinstance(verdict, Admit), verdict


def test_no_room_is_kept_for_long_requests_that_would_be_late_with_nobody_ahead() -> None:
    """Seen: the reserve for a long prompt took more than the limit, so that whoever came while another ran was refused."""
    judge = policy(model=line(0.016, 2e-3, 1e-3))
    for number in range(200):
        judge.admit(streaming(number, 400), reading())
    assert judge.length_share.share == START, "what no room can help teaches nothing about room"
    assert isinstance(judge.admit(streaming(999, 40), reading()), Admit)


def test_who_is_over_its_share_waits_for_room_that_the_others_find() -> None:
    """Seen: one tenant's answers took every step to its limit, and the other's first tokens two and a half times as long."""
    judge = policy(places=64, model=line(0.03, 2e-3, 3e-3))
    readers = [Row(number, NOW_S - 1, context=60, emitted=5, deadline_s=NOW_S + 0.24, gap_s=0.24) for number in range(16)]
    beside = replace(system(running=16, context=16 * 60), running_columns=columns(readers))

    def asks(number: int, tenant: int) -> Admit | Reject:
        limits = RequestLimits(ttft_s=4.0, itl_s=0.24)
        return judge.admit(RequestView(100 + number, NOW_S, NOW_S, 90, 90, 40, limits=limits, tenant=tenant), beside)

    assert isinstance(asks(0, 1), Admit), "alone it may have all"
    found = [asks(number, 2 if number % 11 == 0 else 1) for number in range(1, 60)]
    assert isinstance(asks(60, 2), Admit)
    last = found[-1]
    assert isinstance(last, Reject)
    assert last.reason.code == "others_would_wait"
    assert last.reason.operands["others_ttft_s"] > last.reason.operands["others_ttft_most_s"]
    assert last.retry_after_s > 0


def test_a_gap_that_no_step_keeps_binds_nobody() -> None:
    """Seen: one stream with a limit of 1 ms between tokens had everybody refused, and prompts computed at the floor."""
    hopeless = Row(0, NOW_S - 1, context=60, emitted=5, deadline_s=NOW_S + 1e-3, gap_s=1e-3)
    fine = replace(hopeless, id=1, deadline_s=NOW_S + 0.1, gap_s=0.1)
    alone, beside = ([fine], [hopeless, fine])
    judge = policy()
    for running in (alone, beside):
        seen = replace(system(running=len(running), context=60), running_columns=columns(running))
        assert isinstance(judge.admit(streaming(9, 60), seen), Admit)
    plans = [policy().plan(view([Row(8, prefill=600)], running)) for running in (alone, beside)]
    assert plans[0].reason.code == plans[1].reason.code == "slack"
    assert plans[1].prefill_budget_tokens >= plans[0].prefill_budget_tokens - 2
    assert plan([Row(8, prefill=600)], [hopeless]).reason.code == "nothing_at_risk"
    for _ in range(100):
        judge.plan(view([Row(8, prefill=600)], [hopeless]))
        judge.observe(result(StepWork(20, 2, 0, 0), 0.05))
    assert judge.step_margin.share == MARGIN, "no margin would have helped"


def test_who_comes_early_is_let_in_where_a_fresh_one_would_be() -> None:
    """Seen: the first refusal of a load generator with one prompt kept all its clients out until the promised time."""
    judge = policy()
    request = RequestView(1, NOW_S, NOW_S, 400, 400, 50, limits=RequestLimits(ttft_s=0.8), fingerprint=7)
    crowd = columns([Row(10 + number, NOW_S - 1, NOW_S + 0.8, prefill=400) for number in range(5)])
    full = replace(system(waiting=5, running=8, uncached=2000), waiting_columns=crowd)
    first = judge.admit(request, full)
    assert isinstance(first, Reject)
    again = judge.admit(replace(request, request_id=2), full)
    assert isinstance(again, Reject)
    assert again.reason.code == "too_early"
    assert again.retry_after_s == pytest.approx(first.retry_after_s)
    free = replace(system(running=1, context=10), running_columns=columns([Row(3, NOW_S - 1, context=10, emitted=2)]))
    assert isinstance(judge.admit(replace(request, request_id=3), free), Admit)


def test_batch_requests_leave_places_to_interactive_ones_that_limit_no_gap() -> None:
    """Seen: where only the first token had a limit, batch requests took every place."""
    judge = policy(places=8)
    interactive = Row(0, NOW_S - 1, context=50, emitted=3)
    waiting = [Row(1 + number, NOW_S, prefill=50, request_class=BATCH) for number in range(20)]
    assert len(judge.plan(view(waiting, [interactive])).order) == 8 - 2 - 0
    assert len(judge.plan(view(waiting, [interactive], now_s=NOW_S + 1)).order) < 8
    alone = replace(interactive, request_class=BATCH)
    assert len(policy(places=8).plan(view(waiting, [alone])).order) == 7


def test_clients_that_name_no_cap_do_not_lock_each_other_out() -> None:
    """Seen: with the context of the model as cap, the fourth of four chats was told to come back in a minute."""
    judge = policy(places=32)
    running = columns([Row(number, NOW_S - 1, context=60, emitted=5, cap=8100, gap_s=0.1) for number in range(3)])
    seen = replace(system(running=3, context=180), running_columns=running)
    request = RequestView(9, NOW_S, NOW_S, 60, 60, 8100, limits=RequestLimits(ttft_s=0.6, itl_s=0.1))
    assert isinstance(judge.admit(request, seen), Admit)


def test_answers_to_one_prompt_are_let_in_together_or_not_at_all() -> None:
    """Seen by reading: the others were judged anew when the first had its token, and refused after its prompt was computed."""
    judge = policy(places=32, model=line(0.01, 1e-3, 1e-3))
    readers = [Row(number, NOW_S - 1, context=60, emitted=5, deadline_s=NOW_S + 0.05, gap_s=0.05) for number in range(8)]
    beside = replace(system(running=8, context=8 * 60), running_columns=columns(readers))
    first = RequestView(20, NOW_S, NOW_S, 60, 60, 40, limits=RequestLimits(ttft_s=0.6, itl_s=0.05))
    assert isinstance(judge.admit(first, beside), Admit)
    together = judge.admit(replace(first, request_id=21, answers=16), beside)
    assert isinstance(together, Reject)
    assert together.reason.code == "itl_would_be", "sixteen more answers make steps too long, and one would not"
    late = NOW_S + 0.59
    other = judge.admit(replace(first, request_id=22, arrived_s=late, sent_s=NOW_S, answers=0), replace(beside, now_s=late))
    assert isinstance(other, Admit)
    assert other.reason.code == "with_first"


def test_what_has_no_deadline_leaves_half_of_the_queue_to_those_who_have_one() -> None:
    judge = policy()
    flood = RequestView(1, NOW_S, NOW_S, 50, 50, 50, streaming=False)
    queue = judge._max_waiting
    half = replace(system(waiting=queue // 2, running=4), running_columns=columns([Row(3, NOW_S - 1, context=10, emitted=2)]))
    assert isinstance(judge.admit(flood, half), Admit), "nobody with a deadline was seen"
    due = replace(flood, request_id=2, limits=RequestLimits(e2e_s=100.0))
    assert isinstance(judge.admit(due, half), Admit)
    refused = judge.admit(replace(flood, request_id=3), half)
    assert isinstance(refused, Reject)
    assert refused.reason.code == "queue_full"
    assert isinstance(judge.admit(replace(flood, request_id=4), replace(half, now_s=NOW_S + 2 * DEADLINE_SEEN_S)), Admit)


def test_one_that_comes_back_when_told_still_leaves_room_to_other_tenants() -> None:
    judge = policy(places=64, model=line(0.03, 2e-3, 3e-3))
    readers = [Row(number, NOW_S - 1, context=60, emitted=5, deadline_s=NOW_S + 0.24, gap_s=0.24) for number in range(16)]
    beside = replace(system(running=16, context=16 * 60), running_columns=columns(readers))
    limits = RequestLimits(ttft_s=4.0, itl_s=0.24)
    for number in range(60):
        tenant = 2 if number % 11 == 0 else 1
        asked = RequestView(100 + number, NOW_S, NOW_S, 90, 90, 40, limits=limits, tenant=tenant, fingerprint=100 + number)
        told = judge.admit(asked, beside)
    assert isinstance(told, Reject)
    due_s = NOW_S + told.retry_after_s
    for number in range(60):
        tenant = 2 if number % 11 == 0 else 1
        judge.tenant_room.asked(tenant, due_s, 0.5, 90)
        judge.tenant_room.admitted(tenant, 0.5)
    again = judge.admit(replace(asked, request_id=999, arrived_s=due_s, sent_s=due_s), replace(beside, now_s=due_s))
    assert isinstance(again, Reject)
    assert again.reason.code == "others_would_wait"


def test_answers_that_are_still_to_come_are_counted_against_whoever_asks_meanwhile() -> None:
    judge = policy(places=32, model=line(0.01, 1e-3, 1e-3))
    readers = [Row(number, NOW_S - 1, context=60, emitted=5, deadline_s=NOW_S + 0.06, gap_s=0.06) for number in range(4)]
    beside = replace(system(running=4, context=4 * 60), running_columns=columns(readers))
    many = RequestView(20, NOW_S, NOW_S, 60, 60, 40, limits=RequestLimits(ttft_s=0.9, itl_s=0.06), answers=8, fingerprint=5)
    assert isinstance(judge.admit(many, beside), Admit)
    again = judge.admit(replace(many, request_id=21, fingerprint=6), beside)
    assert isinstance(again, Reject)
    assert again.reason.code == "itl_would_be"
    for number in range(7):
        judge.admit(replace(many, request_id=30 + number, answers=0), beside)
    assert judge.companions.count == 0


def test_the_others_of_a_first_answer_that_has_gone_are_not_waited_for() -> None:
    judge = policy()
    judge.companions.expect(RequestView(20, NOW_S, NOW_S, 60, 60, 40, answers=8, fingerprint=5))
    judge.plan(view([Row(20, prefill=60)]))
    assert judge.companions.count == 7
    judge.plan(view([], [Row(3, context=10, emitted=1)]))
    assert judge.companions.count == 0


def test_many_answers_that_come_back_when_told_still_keep_readers_in_time() -> None:
    judge = policy(places=32, model=line(0.01, 1e-3, 1e-3))
    readers = [Row(number, NOW_S - 1, context=60, emitted=5, deadline_s=NOW_S + 0.05, gap_s=0.05) for number in range(8)]
    beside = replace(system(running=8, context=8 * 60), running_columns=columns(readers))
    limits = RequestLimits(ttft_s=0.6, itl_s=0.05)
    many = RequestView(21, NOW_S, NOW_S, 60, 60, 40, limits=limits, answers=16, fingerprint=5)
    told = judge.admit(many, beside)
    assert isinstance(told, Reject)
    due_s = NOW_S + told.retry_after_s
    again = judge.admit(replace(many, request_id=22, arrived_s=due_s, sent_s=due_s), replace(beside, now_s=due_s))
    assert isinstance(again, Reject)
    assert again.reason.code == "itl_would_be"


def test_the_queue_has_room_for_all_answers_or_the_first_is_not_let_in() -> None:
    judge = policy()
    crowd = columns([Row(3, NOW_S - 1, context=10, emitted=2)])
    full = replace(system(waiting=judge._max_waiting - 4, running=4), running_columns=crowd)
    many = RequestView(21, NOW_S, NOW_S, 60, 60, 40, answers=5, fingerprint=5)
    refused = judge.admit(many, full)
    assert isinstance(refused, Reject)
    assert refused.reason.code == "queue_full"
    assert isinstance(judge.admit(replace(many, answers=4), full), Admit)
    late = replace(full, waiting=judge._max_waiting)
    assert isinstance(judge.admit(replace(many, request_id=22, answers=0), late), Admit), "room was kept for it"
