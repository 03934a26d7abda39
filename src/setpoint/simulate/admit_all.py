"""A policy without its admission: everybody may wait, and everything else is decided as before."""

from __future__ import annotations

from dataclasses import replace

from setpoint.policy.decisions import Admit, Policy, Reason, Reject, StepPlan, StepResult
from setpoint.policy.views import RequestView, StepView, SystemView, no_columns


class AdmitAll:
    """``policy`` is asked about every request as if the system were idle, which it admits into, so that it knows of it."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def admit(self, request: RequestView, system: SystemView) -> Admit | Reject:
        """Always ``Admit``."""
        idle = SystemView(
            now_s=system.now_s,
            waiting=0,
            waiting_uncached_tokens=0,
            running=0,
            running_prefill_tokens=0,
            running_context_tokens=0,
            kv=replace(system.kv, free_blocks=system.kv.blocks),
            waiting_columns=no_columns(),
            running_columns=no_columns(),
        )
        self._policy.admit(request, idle)
        return Admit(Reason("admission_off"))

    def plan(self, step: StepView) -> StepPlan:
        """As ``policy`` plans."""
        return self._policy.plan(step)

    def observe(self, result: StepResult) -> None:
        """Feedback to ``policy``."""
        self._policy.observe(result)
