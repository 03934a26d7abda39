"""``setpoint``: one deadline decides who may wait, who is next, how much prompt fits beside those who read, and who is dropped.

Admission by forecast (``policy/admission.py``) with a promised time to come back (``policy/promises.py``); order by class,
tenant and deadline (``policy/order.py``); slack-sized prefill with a floor (``policy/slack.py``); doomed-drop
(``policy/doomed.py``). Batch requests fill what is left over (``policy/batch_class.py``) and are preempted first.

When it is wrong: every forecast rests on the step-time model and on lengths learned from the past.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf, isinf
from types import MappingProxyType

import numpy as np

from setpoint.policy.admission import Outlook, Outlooks
from setpoint.policy.backlog import StepLimits, machine_of, pace_s, tightest_gap_s
from setpoint.policy.batch_class import LeftOver
from setpoint.policy.companions import Companions
from setpoint.policy.deadlines import has_deadline
from setpoint.policy.decisions import Admit, Reason, Reject, StepPlan, StepResult
from setpoint.policy.doomed import doom_reasons, doomed
from setpoint.policy.fifo import steady_for
from setpoint.policy.forecast import Machine, Prompt
from setpoint.policy.kv_peak import joins_that_stay
from setpoint.policy.length_share import LengthShare
from setpoint.policy.lengths import LONG, OutputLengths
from setpoint.policy.margin import LearnedMargin
from setpoint.policy.order import Serving, aged_batch, most_urgent, next_aged, order_rule, urgency_keys
from setpoint.policy.outcomes import Outcomes
from setpoint.policy.promises import EARLY_S, MOST_WAIT_S, Promise, Promises
from setpoint.policy.queue_bound import LEAST_RETRY_S, queue_is_full
from setpoint.policy.slack import (
    MARGIN,
    chunk_context_tokens,
    decode_work,
    least_step_s,
    prefill_budget,
    prefill_floor,
    step_slack_s,
)
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.tenant_room import Others, TenantRoom
from setpoint.policy.tenants import TenantCounters
from setpoint.policy.unbound import held_back
from setpoint.policy.views import (
    BATCH,
    INTERACTIVE,
    Columns,
    IntColumn,
    RequestLimits,
    RequestView,
    StepView,
    SystemView,
    joined_columns,
    taken,
)

FULL_FOR_S = 1.0
DEADLINE_SEEN_S = 60.0
STEP_MISS_RATE, STEP_MISS_WIDENS, STEP_MISS_REST = 0.001, 0.05, 64
NOTHING_SEEN: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Verdict:
    """``code`` is ``fits`` or what the request would miss; by how many seconds; what was compared, as operands of a reason.

    For each limit that was looked at: ``NAME_s`` (forecast, from the send), ``NAME_limit_s`` and ``NAME_margin_s`` (kept back).
    """

    code: str
    over_s: float
    operands: Mapping[str, float]


class SetpointPolicy:
    """One deadline honoured by admission, order, chunk size and drop alike."""

    def __init__(
        self,
        *,
        max_running: int,
        token_budget: int,
        prefill_floor_tokens: int,
        max_waiting: int,
        model: StepTimeModel,
    ) -> None:
        self.model = model
        self._limits = StepLimits(max_running, token_budget, min(prefill_floor_tokens, token_budget))
        self._max_waiting = max_waiting
        self.lengths = OutputLengths()
        self.tenants = TenantCounters()
        self.promises = Promises()
        self.companions = Companions()
        self.outcomes = Outcomes(self.lengths, self.tenants)
        self.length_share = LengthShare()
        self.tenant_room = TenantRoom()
        self.step_margin = LearnedMargin(
            MARGIN, least=MARGIN, miss_rate=STEP_MISS_RATE, rate=STEP_MISS_WIDENS, binding=True, rest=STEP_MISS_REST
        )
        self._reading_gap_s = inf
        self._outlooks = Outlooks(self._limits, model, self.lengths, self.tenants, self.step_margin)
        self._left_over = LeftOver()
        self._refused_s = self._deadline_seen_s = -inf
        self._aged: int | None = None  # Who went first for having waited too long without a deadline.

    def resize(self, *, max_running: int, token_budget: int, prefill_floor_tokens: int, max_waiting: int) -> None:
        """Other bounds from the next call on; all that was learned stays."""
        self._limits = StepLimits(max_running, token_budget, min(prefill_floor_tokens, token_budget))
        self._outlooks.resize(self._limits)
        self._max_waiting = max_waiting
        self.promises.restart()

    # Admission

    def admit(self, request: RequestView, system: SystemView) -> Admit | Reject:
        """Admit what will make its limits; tell the others when there will be room for them."""
        now_s = system.now_s
        if has_deadline(request):
            self._deadline_seen_s = now_s
        self.tenants.put_behind(self.tenant_room.far_over(now_s))
        others = self.tenant_room.of(request.tenant, now_s)
        idle = system.waiting == 0 and system.running == 0
        if idle:
            self.companions.keep_only(())
        outlook = self._outlook(request, system, [], others=others)
        long = self.lengths.expected(request.request_class, request.max_output_tokens, LONG)
        work_s = outlook.work_s if request.answers else 0.0
        self._left_over.asked(request, now_s, output_tokens=long, least_s=least_step_s(self.model), work_s=work_s)
        interactive = request.request_class == INTERACTIVE
        if request.answers == 0:
            self.companions.came(request.fingerprint)
            return self._admit(request, outlook, now_s, "with_first", None)
        promise = self.promises.returned(request.fingerprint, now_s, answers=request.answers) if interactive else None
        if idle:
            return self._admit(request, outlook, now_s, "idle", promise)
        if promise is not None and now_s < promise.due_s - EARLY_S:
            return self._early(request, system, outlook, promise)
        if promise is None and interactive:
            self.tenant_room.asked(request.tenant, now_s, outlook.work_s, request.uncached_tokens)
        if self._full(request, system):
            counts = {"waiting": system.waiting, "max_waiting": self._max_waiting}
            after_s = min(outlook.first_s, MOST_WAIT_S) / max(1, system.waiting)
            return self._refuse(request, outlook, now_s, Reason("queue_full", counts), after_s)
        if request.limits == RequestLimits():
            return self._admit(request, outlook, now_s, "queue_has_room", promise)
        verdict = self._judge(request, outlook, now_s, careful=False) if promise else self._fresh(request, system, outlook)
        if promise is None and interactive and outlook.room_helps and request.answers == 1:
            self.length_share.decided(outlook.work_s, admitted=verdict.code == "fits")
        if verdict.code == "fits":
            return self._admit(request, outlook, now_s, "fits", promise, verdict.operands)
        operands = {"over_s": verdict.over_s, **verdict.operands}
        return self._refuse(request, outlook, now_s, Reason(verdict.code, operands), verdict.over_s)

    def _full(self, request: RequestView, system: SystemView) -> bool:
        """Whether the queue has no place for it and the answers that come with it.

        Batch work may fill half of the queue, and so may what has no deadline beside those who have one.
        """
        beside_due = system.now_s - self._deadline_seen_s < DEADLINE_SEEN_S
        half = request.request_class == BATCH or (beside_due and not has_deadline(request))
        # Answers that come with it fill the queue for others, and not for the one who finds it empty.
        coming = self.companions.count + request.answers - 1 if system.waiting + self.companions.count else 0
        return queue_is_full(self._max_waiting, system, coming=coming, half=half)

    def _early(self, request: RequestView, system: SystemView, outlook: Outlook, promise: Promise) -> Admit | Reject:
        """One that comes before its time, or another with the same prompt: let in where a fresh one would be, else told to wait
        as before."""
        if not self._full(request, system):
            if request.limits == RequestLimits():
                return self._admit(request, outlook, system.now_s, "queue_has_room", promise)
            verdict = self._fresh(request, system, outlook, own=promise)
            if verdict.code == "fits":
                return self._admit(request, outlook, system.now_s, "fits", promise, verdict.operands)
        due_in_s = promise.due_s - system.now_s
        return Reject(Reason("too_early", {"due_in_s": due_in_s}), due_in_s)

    def _fresh(self, request: RequestView, system: SystemView, outlook: Outlook, *, own: Promise | None = None) -> Verdict:
        """Judged with all that is kept back, behind those to whom room was promised (its ``own`` promise apart)."""
        now_s = system.now_s
        verdict = self._judge(request, outlook, now_s, careful=True)
        if verdict.code != "fits":
            return verdict
        promised = self.promises.due_before(now_s, now_s + min(outlook.first_s, MOST_WAIT_S))
        due = [each for each in promised if each is not own]
        if not due:
            return verdict
        behind = self._outlook(request, system, [_as_prompt(each) for each in due])
        return self._judge(request, behind, now_s, careful=True)

    def _outlook(
        self, request: RequestView, system: SystemView, promised: list[Prompt], *, others: Others | None = None
    ) -> Outlook:
        aged = bool((system.running_columns.ids == self._aged).any())
        return self._outlooks.of(request, system, promised, coming=self.companions.count, others=others, aged=aged)

    def _judge(self, request: RequestView, outlook: Outlook, now_s: float, *, careful: bool) -> Verdict:
        """Against each limit, and what other tenants would come to wait; ``careful``: with the learned margin and room for long
        ones, else of the limits only what is impossible.
        """
        waited_s = now_s - request.sent_s
        limits = request.limits
        seen: dict[str, float] = {}
        if outlook.allowed_gap_s < inf:
            seen |= {"itl_s": outlook.gap_s, "itl_limit_s": outlook.allowed_gap_s}
        if outlook.gap_s > outlook.allowed_gap_s and (careful or request.answers > 1):
            return Verdict("itl_would_be", outlook.gap_frees_s, seen)
        wait = outlook.others_wait
        if wait is not None and wait.first_s > 0.0:
            seen |= {"others_ttft_s": wait.first_s, "others_ttft_most_s": wait.most_s}
            if wait.first_s > wait.most_s:
                return Verdict("others_would_wait", wait.frees_s, seen)
        bounds = [("e2e", limits.e2e_s, outlook.end_s, outlook.reserve_end_s, self.outcomes.end_margin.share)]
        if request.streaming:
            margin = self.outcomes.first_margin.share
            bounds.insert(0, ("ttft", limits.ttft_s, outlook.first_s, outlook.reserve_first_s, margin))
        for name, limit_s, forecast_s, reserve_s, margin in bounds:
            if limit_s is None:
                continue
            kept_s = (margin * limit_s + min(reserve_s, self.length_share.share * limit_s)) if careful else 0.0
            over_s = waited_s + forecast_s + kept_s - limit_s
            seen |= {f"{name}_s": waited_s + forecast_s, f"{name}_limit_s": limit_s, f"{name}_margin_s": kept_s}
            if over_s > 0:
                return Verdict(f"{name}_would_be", over_s, seen)
        return Verdict("fits", 0.0, seen)

    def _admit(
        self,
        request: RequestView,
        outlook: Outlook,
        now_s: float,
        code: str,
        promise: Promise | None,
        seen: Mapping[str, float] = NOTHING_SEEN,
    ) -> Admit:
        if promise is not None:
            self.promises.kept(request.fingerprint)
        elif request.request_class == INTERACTIVE and request.answers:  # Batch work yields, so it takes no room away.
            self.promises.fresh.let_in(now_s, outlook.work_s)
        self.outcomes.admitted(request, first_s=now_s + outlook.first_s, end_s=now_s + outlook.end_s)
        self.companions.expect(request)
        if request.answers:  # The work of the others was counted with the first.
            self.tenant_room.admitted(request.tenant, outlook.work_s)
        return Admit(Reason(code, {"first_token_in_s": outlook.first_s, "end_in_s": outlook.end_s, **seen}))

    def _refuse(self, request: RequestView, outlook: Outlook, now_s: float, reason: Reason, after_s: float) -> Reject:
        if request.request_class == BATCH:  # No room is kept for it that interactive requests would lack.
            return Reject(reason, min(MOST_WAIT_S, max(LEAST_RETRY_S, after_s)))
        self._refused_s = now_s
        output = self.lengths.expected(request.request_class, request.max_output_tokens)
        due_s = self.promises.promise(
            request.fingerprint,
            now_s,
            after_s=min(after_s, MOST_WAIT_S),
            tokens=request.uncached_tokens,
            output_tokens=output,
            work_s=outlook.work_s,
            answers=request.answers,
        )
        return Reject(reason, due_s - now_s)

    # Feedback

    def observe(self, result: StepResult) -> None:
        """Feed the step-time model, the lengths, the margins and the tenants' counters."""
        seconds = result.end_s - result.start_s
        if not isinf(self._reading_gap_s):
            forecast_s = self.model.predict_next_s(result.work)
            self.step_margin.learn(forecast_s=forecast_s, actual_s=seconds, limit_s=self._reading_gap_s)
        self.model.observe(result.work, seconds)
        self.outcomes.observe(result)
        self._outlooks.stepped(result.work.sequences)
        if result.start_s - self._refused_s < FULL_FOR_S:
            beyond_base_s = self.model.predict_s(result.work) - self.model.coefficients[0]
            self.promises.capacity.full_step(beyond_base_s, seconds)

    # Steps

    def plan(self, step: StepView) -> StepPlan:
        """Drop the doomed, order the rest by urgency, give prefill what the readers' slack leaves."""
        step = replace(step, running=self._by_likely_length(step))
        self._left_over.see(step, self.lengths, self.model)
        self.tenants.present(step.waiting.tenant.tolist())
        self.tenants.under_way(step.running.tenant)
        self.tenants.put_behind(self.tenant_room.far_over(step.now_s))
        present = {*step.waiting.ids.tolist(), *step.running.ids.tolist()}
        self.outcomes.forget_all_but(present)
        self.companions.keep_only(present)
        least_s = least_step_s(self.model)
        reading = taken(step.running, np.flatnonzero(step.running.prefill_tokens == 0))
        self._reading_gap_s = tightest_gap_s(reading, least_s=least_s)
        if _nobody_asks(step):
            return self._plan(step, *self._budget(step))
        tightest_s = tightest_gap_s(step.running, step.waiting, least_s=least_s)
        allowed_s = min(tightest_s, pace_s(step.running, self.lengths, step.now_s, self.model))
        margin = self.step_margin.share
        machine = machine_of(self.model, self._limits, step.running, step.waiting, allowed_s=allowed_s, margin=margin)
        prefilling = np.flatnonzero(step.running.prefill_tokens > 0)
        every = joined_columns(taken(step.running, prefilling), step.waiting)
        serving = Serving(len(prefilling), bool((reading.ids == self._aged).any()))
        first = next_aged(every, serving, now_s=step.now_s)
        if len(first):
            self._aged = int(every.ids[first[0]])
        keys = urgency_keys(every, now_s=step.now_s, token_s=machine.token_s, tenants=self.tenants, first=first)
        order = most_urgent(keys)
        waiting = order[order >= len(prefilling)] - len(prefilling)
        lost = doomed(step, waiting, machine, self.lengths, max_running=self._limits.max_running)
        lost = lost[[not self.outcomes.came_with_first(each) for each in step.waiting.ids[lost].tolist()]]
        joining = self._joining(step, _without(waiting, lost), machine)
        chosen = np.arange(len(every)) < len(prefilling)
        chosen[joining + len(prefilling)] = True
        served = order[chosen[order]]
        budget, reason = self._budget(step)
        return replace(
            self._plan(step, budget, reason),
            order=tuple(every.ids[served].tolist()),
            order_rule=order_rule(every, now_s=step.now_s),
            shed=tuple(step.waiting.ids[lost].tolist()),
            shed_retry_after_s=self._come_back(step, lost) if len(lost) else {},
            shed_reasons=doom_reasons(step, lost, machine, self.lengths),
        )

    def _plan(self, step: StepView, budget: int, reason: Reason) -> StepPlan:
        """The part of a plan that stands whoever waits."""
        running = step.running
        return StepPlan(
            order=(),
            order_rule="alone",
            prefill_budget_tokens=budget,
            max_running=self._limits.max_running,
            preempt_order=tuple(running.ids[np.lexsort((running.context_tokens, -running.request_class))].tolist()),
            preempt_rule="least_computed",
            valid_for_steps=1 if len(step.waiting) else steady_for(step),
            reason=reason,
        )

    def _by_likely_length(self, step: StepView) -> Columns:
        """The running requests, an answer due as a whole owing its likely length instead of its cap."""
        running = step.running
        whole = running.tokens_to_deadline > 1
        if not whole.any():
            return running
        likely = np.ceil(self.lengths.remaining(running, LONG)).astype(np.int64)
        owed = np.where(whole, np.minimum(likely, running.tokens_to_deadline), running.tokens_to_deadline)
        return replace(running, tokens_to_deadline=owed)

    def _joining(self, step: StepView, waiting: IntColumn, machine: Machine) -> IntColumn:
        """Indices of waiting requests that may join, in order: places for all, left-overs for the batch class."""
        room = max(0, self._limits.max_running - len(step.running))
        held = held_back(step, waiting, machine, aged=self._aged)
        waiting = waiting[~held]
        batch = step.waiting.request_class[waiting] == BATCH
        if batch.any():
            patient = batch.copy()
            running_aged = aged_batch(step.running, now_s=step.now_s)
            if not len(running_aged):
                patient &= ~np.isin(waiting, aged_batch(step.waiting, now_s=step.now_s))
            most = 0 if held.any() else self._left_over.most_joins(step, machine, max_running=self._limits.max_running)
            waiting = waiting[~patient | (np.cumsum(patient) <= most)]
        return joins_that_stay(step.running, step.waiting, waiting[:room], step.kv, self.lengths)

    def _come_back(self, step: StepView, lost: IntColumn) -> dict[int, float]:
        """When each of the dropped may ask again."""
        seconds = {}
        for request_id, tokens in zip(step.waiting.ids[lost].tolist(), step.waiting.prefill_tokens[lost].tolist(), strict=True):
            request = self.outcomes.shed(request_id, step.now_s)
            if request is not None and request.request_class == BATCH:
                seconds[request_id] = LEAST_RETRY_S
                continue
            self._refused_s = step.now_s
            output = 1 if request is None else self.lengths.expected(request.request_class, request.max_output_tokens)
            answers = 1 if request is None else request.answers
            _, per_token, per_sequence, *_ = self.model.coefficients
            due_s = self.promises.promise(
                0 if request is None else request.fingerprint,
                step.now_s,
                after_s=0.0,
                tokens=tokens,
                output_tokens=output,
                work_s=tokens * per_token + answers * output * (per_token + per_sequence),
                answers=answers,
            )
            seconds[request_id] = due_s - step.now_s
        return seconds

    def _budget(self, step: StepView) -> tuple[int, Reason]:
        decodes = decode_work(step.running)
        most = max(self._limits.floor_tokens, self._limits.token_budget - decodes.tokens)
        if _nobody_asks(step):
            return most, Reason("no_prompts", {"decodes": decodes.tokens})
        least_s = least_step_s(self.model)
        slack_s = step_slack_s(step, self.model.predict_s(decodes) + self.model.change_s, least_s=least_s)
        if isinf(slack_s):
            return most, Reason("nothing_at_risk", {"budget": most})
        context_tokens, margin = chunk_context_tokens(step), self.step_margin.share
        gap_s = tightest_gap_s(step.running, step.waiting, least_s=least_s)
        floor = prefill_floor(self._limits.floor_tokens, self.model, gap_s=gap_s, context_tokens=context_tokens)
        fits = prefill_budget(slack_s, decodes, self.model, context_tokens=context_tokens, margin=margin)
        budget = max(floor, min(most, fits))
        code = "floor" if fits < floor else "slack" if fits < most else "slack_ample"
        return budget, Reason(code, {"slack_s": slack_s, "fits": fits, "budget": budget, "decodes": decodes.tokens})


def _nobody_asks(step: StepView) -> bool:
    """Whether there is no prompt to compute: the common step, in which there is little to decide."""
    return not len(step.waiting) and not step.running.prefill_tokens.any()


def _without(index: IntColumn, gone: IntColumn) -> IntColumn:
    return index[~np.isin(index, gone)] if len(gone) else index


def _as_prompt(promise: Promise) -> Prompt:
    return Prompt(promise.tokens, promise.output_tokens, promise.tokens + promise.answers * promise.output_tokens)
