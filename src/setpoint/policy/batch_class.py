"""How much of a step batch requests may fill: what interactive requests leave over.

Rule: while interactive requests have been seen in the last ``REMEMBER_S`` seconds, batch requests join only as long as a step
of all decodes and the least prefill stays within ``BATCH_SHARE`` of the longest step the tightest of them allows (if any limits
it), so that the rest is there for their prompts, and take no larger share of steps than the work of interactive requests leaves
(over some ``WORK_S`` seconds; ``AMPLE`` times as much is kept for them): a step that batch requests lengthen lengthens every
answer beside it. As many places stay free as interactive requests of late needed at once, with one in ``RESERVED`` of all
places as the least; an idle engine takes one all the same. Without interactive requests in that time they take everything.

When it is wrong: interactive traffic that returns after a longer pause finds the places taken until answers end.
"""

from __future__ import annotations

from math import exp, inf, isinf

import numpy as np

from setpoint.policy.backlog import pace_s, tightest_gap_s
from setpoint.policy.deadlines import gap_limit_s
from setpoint.policy.forecast import Machine
from setpoint.policy.lengths import OutputLengths
from setpoint.policy.slack import MARGIN, least_step_s
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import INTERACTIVE, Columns, RequestView, StepView, taken

REMEMBER_S = 10.0
BATCH_SHARE = 0.5
RESERVED = 4
FOLLOW = 0.05
WORK_S = 20.0
LEAST_SEEN_S = 2.0
AMPLE = 1.3
LEAST_ROOM = 0.1


class LeftOver:
    """Remembers what interactive requests of late allowed."""

    def __init__(self) -> None:
        self._allowed_s = inf
        self._seen_s = self._limited_s = -inf
        self._peak = 0.0
        self._peak_s = -inf
        self._running = 0
        self._work_sum_s = 0.0  # Machine seconds that interactive requests brought beyond what a step costs anyway; it fades.
        self._work_at_s = self._since_s = -inf

    def see(self, step: StepView, lengths: OutputLengths, model: StepTimeModel) -> None:
        """Note the longest step that the interactive requests of ``step`` allow."""
        running, waiting = _interactive(step.running), _interactive(step.waiting)
        count = len(running) + len(waiting)
        fade = 0.5 ** ((step.now_s - self._peak_s) / REMEMBER_S) if step.now_s > self._peak_s > -inf else 1.0
        self._peak, self._peak_s = max(float(count), self._peak * fade), step.now_s
        self._running = len(running)
        if not count:
            return
        gap_s = tightest_gap_s(running, waiting, least_s=least_step_s(model))
        self._note(step.now_s, min(gap_s, pace_s(running, lengths, step.now_s, model)))

    def asked(
        self, request: RequestView, now_s: float, *, output_tokens: int, least_s: float = 0.0, work_s: float = 0.0
    ) -> None:
        """An interactive request came; if it is refused because of batch requests, no step will ever show it.

        ``least_s``: what a step takes at least; a limit that is not over it binds nobody. ``work_s``: machine seconds of it.
        """
        if request.request_class == INTERACTIVE:
            if now_s - self._work_at_s > REMEMBER_S:
                self._work_sum_s, self._since_s = 0.0, now_s
            self._work_sum_s = self._faded(now_s) + work_s
            self._work_at_s = now_s
            limit_s = request.limits.e2e_s
            each_s = inf if limit_s is None else limit_s / (output_tokens + 1)
            allowed = (gap_limit_s(request.limits, streaming=request.streaming), each_s)
            self._note(now_s, min((each for each in allowed if each > least_s), default=inf))

    def _note(self, now_s: float, allowed_s: float) -> None:
        self._seen_s = now_s
        if isinf(allowed_s):
            return
        if now_s - self._limited_s > REMEMBER_S or allowed_s < self._allowed_s:
            self._allowed_s = allowed_s
        else:
            self._allowed_s += FOLLOW * (allowed_s - self._allowed_s)
        self._limited_s = now_s

    def most_joins(self, step: StepView, machine: Machine, *, max_running: int) -> int:
        """Batch requests that may join now."""
        running = len(step.running)
        if step.now_s - self._seen_s > REMEMBER_S:
            return max(0, max_running - running)
        least = 0 if running else 1  # Beside nobody one may join whatever is kept free.
        reserved = max(1.0, max_running // RESERVED, self._peak + 1)
        batch = running - self._running
        places = int(max_running - reserved) - batch
        if step.now_s - self._limited_s > REMEMBER_S:  # Nobody of late had a limit on the length of steps.
            return max(least, places)
        step_s = machine.step_s(running, machine.floor_tokens)
        spare_s = BATCH_SHARE * self._allowed_s - step_s
        own_s = self._left_share(step.now_s, machine) * step_s - batch * machine.sequence_s
        return max(least, min(places, int(min(spare_s, own_s) / max(machine.sequence_s, 1e-9))))

    def _left_share(self, now_s: float, machine: Machine) -> float:
        """Share of the time that interactive requests leave, were every step as long as they allow."""
        longest_s = (1 - MARGIN) * self._allowed_s
        room = max(LEAST_ROOM, 1 - machine.base_s / longest_s) if longest_s > 0 else LEAST_ROOM
        # What was seen for a short time only is not taken for all of ``WORK_S``.
        seen_s = WORK_S * (1 - exp(-max(LEAST_SEEN_S, now_s - self._since_s) / WORK_S))
        return max(0.0, room - AMPLE * self._faded(now_s) / seen_s)

    def _faded(self, now_s: float) -> float:
        """The work that still counts."""
        return self._work_sum_s * exp(min(0.0, self._work_at_s - now_s) / WORK_S)


def _interactive(columns: Columns) -> Columns:
    interactive = columns.request_class == INTERACTIVE
    return columns if interactive.all() else taken(columns, np.flatnonzero(interactive))
