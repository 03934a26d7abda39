"""The bound every queue has: a request that would be one too many is turned away at once.

``Retry-After`` is the time the step-time model gives the present backlog of uncached prefill. It is wrong (too short) where
decodes, not prefill, hold the queue up.
"""

from __future__ import annotations

from setpoint.policy.decisions import Admit, Reason, Reject, StepWork
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import SystemView

LEAST_RETRY_S = 1.0


def queue_is_full(max_waiting: int, system: SystemView, *, coming: int = 0, half: bool = False) -> bool:
    """Whether one more would be too many, beside ``coming`` that were let in already or come with it; ``half``: it may wait in
    half of the queue only, and leaves the rest to others."""
    return system.waiting + coming >= (-(-max_waiting // 2) if half else max_waiting)


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
