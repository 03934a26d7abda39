"""How much of a step batch requests may fill: what interactive requests leave over.

Rule: while interactive requests have been seen in the last ``REMEMBER_S`` seconds, batch requests join only as long as a step
of all decodes and the least prefill stays within ``BATCH_SHARE`` of the longest step the tightest of them allows, so that the
rest is there for their prompts, and one place in ``RESERVED`` stays free. Without interactive requests they take everything.

When it is wrong: interactive traffic that returns after a longer pause finds the places taken until answers end.
"""

from __future__ import annotations

from math import inf, isinf

import numpy as np

from setpoint.policy.backlog import pace_s, tightest_gap_s
from setpoint.policy.forecast import Machine
from setpoint.policy.lengths import OutputLengths
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import INTERACTIVE, StepView, taken

REMEMBER_S = 10.0
BATCH_SHARE = 0.5
RESERVED = 4


class LeftOver:
    """Remembers what interactive requests of late allowed."""

    def __init__(self) -> None:
        self._allowed_s = inf
        self._seen_s = -inf

    def see(self, step: StepView, lengths: OutputLengths, model: StepTimeModel) -> None:
        """Note the longest step that the interactive requests of ``step`` allow."""
        running = taken(step.running, np.flatnonzero(step.running.request_class == INTERACTIVE))
        waiting = taken(step.waiting, np.flatnonzero(step.waiting.request_class == INTERACTIVE))
        if not len(running) and not len(waiting):
            return
        allowed_s = min(tightest_gap_s(running, waiting), pace_s(running, lengths, step.now_s, model))
        if isinf(allowed_s):
            return
        if step.now_s - self._seen_s > REMEMBER_S or allowed_s < self._allowed_s:
            self._allowed_s = allowed_s
        else:
            self._allowed_s += 0.05 * (allowed_s - self._allowed_s)
        self._seen_s = step.now_s

    def most_joins(self, step: StepView, machine: Machine, *, max_running: int) -> int:
        """Batch requests that may join now."""
        running = len(step.running)
        if not running or step.now_s - self._seen_s > REMEMBER_S:
            return max(0, max_running - running)
        places = max_running - max(1, max_running // RESERVED) - running
        spare_s = BATCH_SHARE * self._allowed_s - machine.step_s(running, machine.floor_tokens)
        return max(0, min(places, int(spare_s / max(machine.sequence_s, 1e-9))))
