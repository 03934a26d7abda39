"""``immediate``: one request at a time, no batching.

Lowest ITL a request can have, and the lowest throughput: the weights are read once for every token. Right where load is
light or a request is over in a few steps; wrong as soon as requests queue behind long answers.
"""

from __future__ import annotations

from setpoint.policy.decisions import StepPlan
from setpoint.policy.fifo import FirstComePolicy, first_come_plan
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import StepView


class ImmediatePolicy(FirstComePolicy):
    """Whole prompts (up to ``token_budget`` a step), then its tokens, then the next request."""

    def __init__(self, *, token_budget: int, max_waiting: int, model: StepTimeModel) -> None:
        super().__init__(max_waiting=max_waiting, model=model)
        self._token_budget = token_budget

    def plan(self, step: StepView) -> StepPlan:
        """One running request, oldest first."""
        return first_come_plan(step, max_running=1, budget_tokens=self._token_budget, code="one_at_a_time")
