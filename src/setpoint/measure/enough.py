"""Ending a load before its plan does, once enough is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from setpoint.measure.outcome import RequestOutcome
    from setpoint.workload.plan import LoadPlan


class Enough(Protocol):
    """Says at fixed instants whether to stop sending. It is called on another thread, with a list of its own."""

    @property
    def looks_s(self) -> Sequence[float]:
        """When to look, in seconds from the start of the plan, ascending."""

    def __call__(self, rows: Sequence[RequestOutcome], now_s: float) -> bool:
        """Whether enough is known from the ``rows`` of the requests that ended by about ``now_s``."""


def plan_until(plan: LoadPlan, end_s: float) -> LoadPlan:
    """The part of a plan by time that lies before ``end_s``: its requests keep their indices, its last phase is cut.

    Turns that follow stay where the first turn does; whether they are offered is decided by the end of the last phase.
    """
    kept = {request.index for request in plan.requests if request.intended_s < end_s}
    requests = [request for request in plan.requests if request.index in kept or request.follows in kept]
    phases = [replace(span, end_s=min(span.end_s, end_s)) for span in plan.phases if span.start_s < end_s]
    return replace(plan, requests=requests, phases=phases)
