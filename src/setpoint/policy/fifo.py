"""First come, first served: what the modes without deadlines have in common."""

from __future__ import annotations

import numpy as np

from setpoint.policy.decisions import UNLIMITED, Admit, Reason, Reject, StepPlan, StepResult
from setpoint.policy.queue_bound import admit_below
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import Columns, IntColumn, RequestView, StepView, SystemView


def in_prefill(running: Columns) -> IntColumn:
    """Ids of running requests whose prompt is not computed yet, oldest first."""
    return running.ids[np.flatnonzero(running.prefill_tokens)]


def left_of(token_budget: int, running: Columns) -> int:
    """What the decodes leave of a step's tokens for prompts, at least one."""
    return max(1, token_budget - len(running) + int(np.count_nonzero(running.prefill_tokens)))


def oldest_first(step: StepView, max_running: int) -> tuple[int, ...]:
    """Running prefills, then as many waiting requests as may still join; last to arrive, first to be preempted."""
    room = max(0, max_running - len(step.running))
    return (*in_prefill(step.running).tolist(), *step.waiting.ids[:room].tolist())


def steady_for(step: StepView) -> int:
    """Steps for which a first-come plan stands if nothing changes: for ever once no running prompt is left to compute.

    Whoever waits then waits for a place or for blocks, and a step in which one of them joins is a change.
    """
    return 1 if np.count_nonzero(step.running.prefill_tokens) else UNLIMITED


class FirstComePolicy:
    """Base of the first-come modes: a bounded queue, a step-time model that listens, newest preempted first."""

    def __init__(self, *, max_waiting: int, model: StepTimeModel) -> None:
        self.model = model
        self._max_waiting = max_waiting

    def admit(self, request: RequestView, system: SystemView) -> Admit | Reject:
        """Bounded queue; ``request`` itself does not matter."""
        return admit_below(self._max_waiting, system, self.model)

    def observe(self, result: StepResult) -> None:
        """Feed the step-time model."""
        self.model.observe(result.work, result.end_s - result.start_s)


def first_come_plan(step: StepView, *, max_running: int, budget_tokens: int, code: str) -> StepPlan:
    """Serve in order of arrival with a fixed prefill budget."""
    return StepPlan(
        order=oldest_first(step, max_running),
        prefill_budget_tokens=budget_tokens,
        max_running=max_running,
        preempt_order=tuple(step.running.ids[::-1].tolist()),
        valid_for_steps=steady_for(step),
        reason=Reason(code, {"running": len(step.running), "waiting": len(step.waiting), "budget": budget_tokens}),
    )
