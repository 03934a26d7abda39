"""``setpoint``: deadlines decide who is next and how much prompt fits beside those who are reading.

Order: earliest deadline first with remaining work as tie-break; interactive before batch; first come among equals. Budget:
slack-sized prefill with a floor. Shed: a waiting request that can no longer make its deadline. Queue: bounded.
When it is wrong: shedding assumes the prediction; a request judged doomed on a slow moment is lost to the caller.
"""

from __future__ import annotations

from math import isinf

import numpy as np

from setpoint.policy.decisions import Admit, Reason, Reject, StepPlan, StepResult
from setpoint.policy.fifo import steady_for
from setpoint.policy.queue_bound import admit_below
from setpoint.policy.slack import chunk_context_tokens, decode_work, prefill_budget, step_slack_s
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import Columns, FloatColumn, RequestView, StepView, SystemView


def urgency_keys(columns: Columns) -> FloatColumn:
    """Keys for ``np.lexsort``: class, deadline, remaining work where there is a deadline, arrival. Shape (4, requests)."""
    work = np.where(np.isinf(columns.deadline_s), 0, columns.prefill_tokens)
    return np.vstack((columns.arrived_s, work, columns.deadline_s, columns.request_class))


class SetpointPolicy:
    """One deadline honoured by order, chunk size and drop alike."""

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
        self._max_running = max_running
        self._token_budget = token_budget
        self._floor = min(prefill_floor_tokens, token_budget)
        self._max_waiting = max_waiting

    def admit(self, request: RequestView, system: SystemView) -> Admit | Reject:
        """Bounded queue."""
        return admit_below(self._max_waiting, system, self.model)

    def observe(self, result: StepResult) -> None:
        """Feed the step-time model."""
        self.model.observe(result.work, result.end_s - result.start_s)

    def plan(self, step: StepView) -> StepPlan:
        """Drop the doomed, order the rest by urgency, give prefill what the readers' slack leaves."""
        doomed = self._doomed(step)
        order = self._order(step, doomed)
        budget, reason = self._budget(step)
        return StepPlan(
            order=order,
            prefill_budget_tokens=budget,
            max_running=self._max_running,
            shed=doomed,
            preempt_order=tuple(step.running.ids[np.argsort(step.running.context_tokens, kind="stable")].tolist()),
            valid_for_steps=steady_for(step),
            reason=reason,
        )

    def _doomed(self, step: StepView) -> tuple[int, ...]:
        if not len(step.waiting):
            return ()
        c0, per_token, per_sequence, *_ = self.model.coefficients
        earliest_s = step.now_s + c0 + per_sequence + per_token * step.waiting.prefill_tokens
        # A request that has emitted tokens (it was preempted) is being read: it is late, not doomed.
        doomed = (earliest_s > step.waiting.deadline_s) & (step.waiting.emitted_tokens == 0)
        return tuple(step.waiting.ids[doomed].tolist())

    def _order(self, step: StepView, doomed: tuple[int, ...]) -> tuple[int, ...]:
        """The most urgent of those who may join, among the prompts under way, by urgency."""
        prefilling = step.running.prefill_tokens > 0
        if not len(step.waiting) and not prefilling.any():
            return ()
        stays = ~np.isin(step.waiting.ids, doomed)
        ids, keys = step.waiting.ids[stays], urgency_keys(step.waiting)[:, stays]
        joining = np.lexsort(keys)[: max(0, self._max_running - len(step.running))]
        ids = np.concatenate((step.running.ids[prefilling], ids[joining]))
        keys = np.hstack((urgency_keys(step.running)[:, prefilling], keys[:, joining]))
        return tuple(ids[np.lexsort(keys)].tolist())

    def _budget(self, step: StepView) -> tuple[int, Reason]:
        decodes = decode_work(step)
        most = max(self._floor, self._token_budget - decodes.tokens)
        if not len(step.waiting) and not step.running.prefill_tokens.any():
            return most, Reason("no_prompts", {"decodes": decodes.tokens})
        slack_s = step_slack_s(step)
        if isinf(slack_s):
            return most, Reason("nothing_at_risk", {"budget": most})
        fits = prefill_budget(slack_s, decodes, self.model, context_tokens=chunk_context_tokens(step))
        budget = max(self._floor, min(most, fits))
        code = "floor" if fits < self._floor else "slack" if fits < most else "slack_ample"
        return budget, Reason(code, {"slack_s": slack_s, "fits": fits, "budget": budget, "decodes": decodes.tokens})
