"""``continuous``: requests join and leave at step boundaries under a fixed token budget.

The budget counts decodes too: prefill gets ``token_budget`` less one token for every decode. Source: iteration-level
scheduling (Orca, OSDI 2022) with chunked prefill (Sarathi-Serve, OSDI 2024). When it is wrong: one constant budget is at
once too small for a burst of prompts and too large for the ITL of those who are reading.
"""

from __future__ import annotations

from setpoint.policy.decisions import StepPlan
from setpoint.policy.fifo import FirstComePolicy, first_come_plan, left_of
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import StepView


class ContinuousPolicy(FirstComePolicy):
    """First come, first served into at most ``max_running`` places."""

    def __init__(self, *, max_running: int, token_budget: int, max_waiting: int, model: StepTimeModel) -> None:
        super().__init__(max_waiting=max_waiting, model=model)
        self._max_running = max_running
        self._token_budget = token_budget

    def plan(self, step: StepView) -> StepPlan:
        """Join whoever fits; what decodes leave of the budget goes to prompts."""
        budget = left_of(self._token_budget, step.running)
        return first_come_plan(step, max_running=self._max_running, budget_tokens=budget, code="fixed_budget")
