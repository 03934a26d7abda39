"""What all modes have in common: purity, bounded queues, honest plans; and what each of the first-come modes does."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_views import NOW_S, Row, asking, config, later, line, result, system, view, views

from setpoint.policy.configuration import BatchingMode
from setpoint.policy.continuous import ContinuousPolicy
from setpoint.policy.decisions import UNLIMITED, Admit, Policy, Reason, Reject, StepWork
from setpoint.policy.immediate import ImmediatePolicy
from setpoint.policy.modes import build_policy
from setpoint.policy.setpoint import SetpointPolicy
from setpoint.policy.static import StaticPolicy
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import StepView

MODES = list(BatchingMode)
KINDS = {
    BatchingMode.IMMEDIATE: ImmediatePolicy,
    BatchingMode.STATIC: StaticPolicy,
    BatchingMode.CONTINUOUS: ContinuousPolicy,
    BatchingMode.SETPOINT: SetpointPolicy,
}


@pytest.mark.parametrize("mode", MODES)
def test_a_configuration_builds_its_policy(mode: BatchingMode) -> None:
    model = StepTimeModel()
    policy = build_policy(config(mode), model)
    assert type(policy) is KINDS[mode]
    policy.observe(result(StepWork(10, 1, 10, 10), 0.1))
    assert model.observations == 1


@pytest.mark.parametrize("mode", MODES)
@given(steps=st.lists(views(), max_size=4), running=st.integers(1, 8), budget=st.sampled_from([1, 64, 512]))
@settings(max_examples=60, deadline=None)
def test_plans_are_deterministic_and_keep_their_limits(
    mode: BatchingMode, steps: list[StepView], running: int, budget: int
) -> None:
    chosen = config(mode, max_running=running, token_budget=budget)
    first, second = build_policy(chosen), build_policy(chosen)
    for step in steps:
        untouched = copy.deepcopy(step)
        plan = first.plan(step)
        assert plan == second.plan(untouched)
        assert repr(step) == repr(untouched), "planning changed the view"
        known = {*step.waiting.ids.tolist(), *step.running.ids.tolist()}
        assert len(set(plan.order)) == len(plan.order)
        assert set(plan.order) <= known - set(plan.shed)
        assert set(plan.shed) <= set(step.waiting.ids.tolist())
        prefilling = set(step.running.ids[step.running.prefill_tokens > 0].tolist())
        assert prefilling <= set(plan.order), "a prompt under way is never left out"
        assert set(plan.preempt_order) <= set(step.running.ids.tolist())
        assert 1 <= plan.prefill_budget_tokens <= max(budget, chosen.prefill_floor_tokens)
        assert plan.max_running <= running
        assert plan.valid_for_steps >= 1
        assert plan.wake_at_s is None or plan.wake_at_s > step.now_s
        assert str(plan.reason).split()[0] == plan.reason.code


@pytest.mark.parametrize("mode", MODES)
@given(step=st.one_of(views(), views(prompts=False)), steps=st.integers(1, 20), seconds=st.floats(0.001, 2))
@settings(max_examples=80, deadline=None)
def test_a_plan_that_stands_for_n_steps_is_the_plan_of_those_steps(
    mode: BatchingMode, step: StepView, steps: int, seconds: float
) -> None:
    policy = build_policy(config(mode))
    plan = policy.plan(step)
    if plan.valid_for_steps > 1:
        assert policy.plan(later(step, min(steps, plan.valid_for_steps - 1), seconds)) == plan


@pytest.mark.parametrize("mode", [BatchingMode.IMMEDIATE, BatchingMode.CONTINUOUS, BatchingMode.SETPOINT])
def test_decodes_alone_are_left_alone(mode: BatchingMode) -> None:
    plan = build_policy(config(mode)).plan(view(running=[Row(1, context=50, emitted=3, deadline_s=NOW_S + 0.1)]))
    assert plan.valid_for_steps == UNLIMITED
    assert plan.order == ()


@pytest.mark.parametrize("mode", MODES)
@given(waiting=st.integers(0, 30), running=st.integers(0, 30), bound=st.integers(0, 20), uncached=st.integers(0, 100_000))
def test_the_queue_is_bounded_and_a_refusal_says_when_to_come_back(
    mode: BatchingMode, waiting: int, running: int, bound: int, uncached: int
) -> None:
    policy = build_policy(config(mode, max_waiting=bound), line(0.01, 1e-3))
    decision = policy.admit(asking(), system(waiting=waiting, running=running, uncached=uncached))
    if waiting < bound or (waiting == 0 and running == 0):
        assert isinstance(decision, Admit)
    else:
        assert isinstance(decision, Reject)
        least_s = 0.1 if mode is BatchingMode.SETPOINT else max(1.0, 1e-3 * uncached)  # one place in the queue, or all of it
        assert decision.retry_after_s >= least_s


def test_without_a_queue_one_request_enters_an_idle_system_and_no_more() -> None:
    """Seen: with ``max_waiting`` 0 any number was let in before the first step."""
    policy = build_policy(config(BatchingMode.CONTINUOUS, max_waiting=0))
    assert isinstance(policy.admit(asking(1), system()), Admit)
    assert isinstance(policy.admit(asking(2), system(waiting=1)), Reject)
    assert isinstance(policy.admit(asking(2), system(running=1)), Reject)


def test_a_reason_is_put_into_words() -> None:
    assert str(Reason("slack", {"slack_s": 0.0312345, "budget": 64})) == "slack slack_s=0.03123 budget=64"
    assert str(Reason("no_prompts")) == "no_prompts"


def waiting_since(*moments: float) -> list[Row]:
    return [Row(i, at_s, prefill=100) for i, at_s in enumerate(moments)]


@given(views())
def test_immediate_never_batches(step: StepView) -> None:
    plan = build_policy(config(BatchingMode.IMMEDIATE)).plan(step)
    assert plan.max_running == 1
    joining = set(plan.order) & set(step.waiting.ids.tolist())
    assert len(joining) <= (0 if len(step.running) else 1)


@given(views(), st.integers(1, 600), st.integers(1, 8))
def test_continuous_fills_a_fixed_budget_in_order_of_arrival(step: StepView, budget: int, places: int) -> None:
    plan = build_policy(config(BatchingMode.CONTINUOUS, token_budget=budget, max_running=places)).plan(step)
    decodes = int((step.running.prefill_tokens == 0).sum())
    assert plan.prefill_budget_tokens == max(1, budget - decodes)
    joining = [i for i in plan.order if i in step.waiting.ids]
    assert joining == step.waiting.ids[: max(0, places - len(step.running))].tolist()
    assert list(plan.preempt_order) == step.running.ids[::-1].tolist()


def static(**fields: float) -> Policy:
    return build_policy(config(BatchingMode.STATIC, max_running=3, batch_wait_s=0.5, **fields))


def test_static_waits_for_a_full_batch() -> None:
    policy = static()
    assert policy.plan(view()).wake_at_s is None
    plan = policy.plan(view(waiting_since(NOW_S - 0.2, NOW_S)))
    assert (plan.order, plan.wake_at_s, plan.reason.code) == ((), NOW_S - 0.2 + 0.5, "batch_fills")
    plan = policy.plan(view(waiting_since(NOW_S - 0.2, NOW_S, NOW_S, NOW_S)))
    assert (plan.order, plan.wake_at_s, plan.reason.code) == ((0, 1, 2), None, "batch_full")


def test_static_waits_no_longer_than_w() -> None:
    policy = static()
    rows = waiting_since(NOW_S, NOW_S + 0.1)
    wake_at_s = policy.plan(view(rows)).wake_at_s
    assert wake_at_s == NOW_S + 0.5
    plan = policy.plan(view(rows, now_s=wake_at_s))
    assert (plan.order, plan.reason.code) == ((0, 1), "batch_wait_over")


def test_a_static_step_keeps_the_token_budget_beside_its_decodes() -> None:
    """Seen: prompts were given the whole budget beside members that decode already."""
    policy = static(token_budget=10)
    decoding = [Row(0, NOW_S, context=100, emitted=1), Row(1, NOW_S, context=100, emitted=1)]
    assert policy.plan(view([], [*decoding, Row(2, NOW_S, context=40, prefill=60)])).prefill_budget_tokens == 8
    crowd = [Row(number, NOW_S, context=9, emitted=1) for number in range(12)]
    assert policy.plan(view([], [*crowd, Row(12, NOW_S, prefill=60)])).prefill_budget_tokens == 1, "prompts go on"


def test_nobody_joins_a_running_static_batch_and_a_preempted_member_returns() -> None:
    policy = static()
    rows = waiting_since(NOW_S, NOW_S, NOW_S)
    policy.plan(view(rows))
    newcomer = Row(7, NOW_S, prefill=10)
    decoding = [Row(0, NOW_S, context=100, emitted=1), Row(1, NOW_S, context=100, emitted=1)]
    half_done = Row(2, NOW_S, context=40, prefill=60)
    plan = policy.plan(view([newcomer], [*decoding, half_done]))
    assert (plan.order, plan.reason.code) == ((2,), "batch_runs")
    plan = policy.plan(view([rows[1], newcomer], [decoding[0]], now_s=NOW_S + 99))
    assert plan.order == (1,), "the preempted member comes back, the newcomer does not join"
    plan = policy.plan(view([rows[1], newcomer], now_s=NOW_S + 99))
    assert plan.order == (1,), "the batch still has a member"
    plan = policy.plan(view([newcomer], now_s=NOW_S + 99))
    assert (plan.order, plan.reason.code) == ((7,), "batch_wait_over")


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 4))
def test_static_batches_are_disjoint_and_in_order(leaving: list[int], size: int) -> None:
    """Whoever leaves when, the next batch starts only after the last member of the one before has gone."""
    policy = build_policy(config(BatchingMode.STATIC, max_running=size, batch_wait_s=0))
    queue, running, batches = list(range(12)), list[int](), list[list[int]]()
    for index in leaving:
        step = view([Row(i, NOW_S, prefill=5) for i in queue], [Row(i, NOW_S, context=5, emitted=1) for i in running])
        joined = [i for i in policy.plan(step).order if i in queue]
        if joined:
            assert not running
            batches.append(joined)
        queue, running = [i for i in queue if i not in joined], running + joined
        if running:
            running.pop(index % len(running))
    joined_ever = [i for batch in batches for i in batch]
    assert joined_ever == list(range(len(joined_ever)))
    assert all(len(batch) <= size for batch in batches)


def test_a_static_policy_put_over_running_requests_takes_them_for_its_batch() -> None:
    plan = static().plan(view([Row(2, NOW_S - 9, prefill=5)], [Row(0, context=9, emitted=1), Row(1, context=4, prefill=5)]))
    assert plan.order == (1,)
