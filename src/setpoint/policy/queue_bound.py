"""The bound every queue has: a request that would be one too many is turned away at once.

``Retry-After`` is the time the step-time model gives the present backlog of uncached prefill. It is wrong (too short) where
decodes, not prefill, hold the queue up.
"""

from __future__ import annotations

from setpoint.policy.decisions import Admit, Reason, Reject, StepWork
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import INTERACTIVE, SystemView

LEAST_RETRY_S = 1.0


def queue_is_full(max_waiting: int, request_class: int, system: SystemView) -> bool:
    """Whether one more would be too many; batch requests may fill half of the queue only, and leave the rest to others."""
    bound = max_waiting if request_class == INTERACTIVE else -(-max_waiting // 2)
    return system.waiting >= bound


def admit_below(max_waiting: int, system: SystemView, model: StepTimeModel) -> Admit | Reject:
    """Admit into an idle system and while fewer than ``max_waiting`` wait, else reject with a predicted ``retry_after_s``."""
    idle = system.waiting == 0 and system.running == 0
    if idle or system.waiting < max_waiting:
        return Admit(Reason("queue_has_room", {"waiting": system.waiting, "max_waiting": max_waiting}))
    backlog = system.waiting_uncached_tokens + system.running_prefill_tokens
    wait_s = model.predict_s(StepWork(backlog, system.running, system.running_context_tokens, 0))
    return Reject(
        Reason("queue_full", {"waiting": system.waiting, "max_waiting": max_waiting, "backlog_tokens": backlog}),
        retry_after_s=max(LEAST_RETRY_S, wait_s),
    )
