"""What became of admitted requests, against what was forecast: the one place where a policy remembers requests by id.

Bounded: whoever is neither queued nor running any more (cancelled, shed) is forgotten at the next plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from setpoint.policy.decisions import StepResult
from setpoint.policy.lengths import OutputLengths
from setpoint.policy.margin import LearnedMargin
from setpoint.policy.tenants import TenantCounters
from setpoint.policy.views import RequestView


@dataclass(slots=True)
class Known:
    """An admitted request: its forecasts (moments, ``inf`` where none was made) and what it has emitted."""

    request: RequestView
    first_s: float
    end_s: float
    emitted: int = 0


class Outcomes:
    """Follows admitted requests to their end and teaches lengths, margins and tenants' counters."""

    def __init__(self, lengths: OutputLengths, tenants: TenantCounters) -> None:
        self.first_margin = LearnedMargin()
        self.end_margin = LearnedMargin()
        self._lengths = lengths
        self._tenants = tenants
        self._known: dict[int, Known] = {}

    def admitted(self, request: RequestView, *, first_s: float, end_s: float) -> None:
        """``request`` may wait; its first token is expected at ``first_s`` and its last at ``end_s``."""
        self._known[request.request_id] = Known(request, first_s, end_s)

    def observe(self, result: StepResult) -> None:
        """Tokens came; answers ended."""
        for request_id, count in result.new_tokens.items():
            known = self._known.get(request_id)
            if known is None:
                continue
            request = known.request
            if known.emitted == 0:
                self._tenants.charge(request.tenant, prompt_tokens=request.uncached_tokens)
                limit_s = request.limits.ttft_s if request.streaming else None
                _teach(self.first_margin, limit_s, request.sent_s, known.first_s, result.end_s)
            known.emitted += count
            self._tenants.charge(request.tenant, output_tokens=count)
        for request_id in result.finished:
            known = self._known.pop(request_id, None)
            if known is None or not (request_id in result.new_tokens or request_id in result.stopped):
                continue  # cancelled: nothing is learned from how long it got
            request = known.request
            self._lengths.ended(request.request_class, cap_tokens=request.max_output_tokens, emitted_tokens=known.emitted)
            _teach(self.end_margin, request.limits.e2e_s, request.sent_s, known.end_s, result.end_s)

    def came_with_first(self, request_id: int) -> bool:
        """Whether it is one of several answers that was let in with the first: late at worst, for the first may have begun."""
        known = self._known.get(request_id)
        return known is not None and known.request.answers == 0

    def shed(self, request_id: int, now_s: float) -> RequestView | None:
        """An admitted request was found doomed: its forecast was wrong by all that its limit allows. Gives the request."""
        known = self._known.pop(request_id, None)
        if known is None:
            return None
        limits, sent_s = known.request.limits, known.request.sent_s
        if limits.ttft_s is not None and known.request.streaming:
            _teach(self.first_margin, limits.ttft_s, sent_s, known.first_s, max(now_s, sent_s + 2 * limits.ttft_s))
        elif limits.e2e_s is not None:
            _teach(self.end_margin, limits.e2e_s, sent_s, known.end_s, max(now_s, sent_s + 2 * limits.e2e_s))
        return known.request

    def forget_all_but(self, present: set[int]) -> None:
        """Only ``present`` requests are still there."""
        if len(self._known) > len(present):
            self._known = {request_id: known for request_id, known in self._known.items() if request_id in present}


def _teach(margin: LearnedMargin, limit_s: float | None, sent_s: float, forecast_s: float, actual_s: float) -> None:
    if limit_s is not None and forecast_s < inf:
        margin.learn(forecast_s=forecast_s - sent_s, actual_s=actual_s - sent_s, limit_s=limit_s)
