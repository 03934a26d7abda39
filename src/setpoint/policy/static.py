"""``static``: fill a batch to B or wait at most W, then run it to completion.

Nobody joins a running batch, so its short requests leave holes and a late arrival waits for the longest answer. Right for
offline work of equal lengths; wrong for anybody who waits.
"""

from __future__ import annotations

from setpoint.policy.decisions import Reason, StepPlan
from setpoint.policy.fifo import FirstComePolicy, in_prefill, left_of, steady_for
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import StepView


class StaticPolicy(FirstComePolicy):
    """Remembers who is in the present batch; a preempted member may come back, a newcomer may not join."""

    def __init__(
        self, *, batch_size: int, batch_wait_s: float, token_budget: int, max_waiting: int, model: StepTimeModel
    ) -> None:
        super().__init__(max_waiting=max_waiting, model=model)
        self._batch_size = batch_size
        self._batch_wait_s = batch_wait_s
        self._token_budget = token_budget
        self._members: frozenset[int] = frozenset()

    def plan(self, step: StepView) -> StepPlan:
        """Go on with the batch, start the next one, or wait for it to fill."""
        waiting = step.waiting.ids.tolist()
        # Whoever runs belongs to the batch; of those who wait, who was in it before.
        self._members = (self._members & frozenset(waiting)) | frozenset(step.running.ids.tolist())
        if self._members:
            return self._step(step, waiting, "batch_runs")
        if len(waiting) >= self._batch_size:
            self._members = frozenset(waiting[: self._batch_size])
            return self._step(step, waiting, "batch_full")
        if not waiting:
            return self._wait(step, wake_at_s=None)
        due_s = float(step.waiting.arrived_s[0]) + self._batch_wait_s
        if step.now_s >= due_s:
            self._members = frozenset(waiting)
            return self._step(step, waiting, "batch_wait_over")
        return self._wait(step, wake_at_s=due_s)

    def _step(self, step: StepView, waiting: list[int], code: str) -> StepPlan:
        joining = [request_id for request_id in waiting if request_id in self._members]
        return StepPlan(
            order=(*in_prefill(step.running).tolist(), *joining),
            prefill_budget_tokens=left_of(self._token_budget, step.running),
            max_running=self._batch_size,
            preempt_order=tuple(step.running.ids[::-1].tolist()),
            valid_for_steps=steady_for(step) if code == "batch_runs" else 1,
            reason=Reason(code, {"members": len(self._members), "waiting": len(waiting)}),
        )

    def _wait(self, step: StepView, *, wake_at_s: float | None) -> StepPlan:
        return StepPlan(
            order=(),
            prefill_budget_tokens=self._token_budget,
            max_running=self._batch_size,
            wake_at_s=wake_at_s,
            reason=Reason("batch_fills", {"waiting": len(step.waiting), "batch_size": self._batch_size}),
        )
