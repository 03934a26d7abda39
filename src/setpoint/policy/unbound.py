"""Requests without limits beside those that have some: how many may join a step.

Rule: while the limits of others bound the length of a step (``Machine.allowed_s``), interactive requests that have neither a
deadline nor a limit on their gaps join only as far as a step of all decodes and the least prefill stays within it. Beside
nobody one joins all the same, and of those that have waited ``PATIENCE_S`` one at a time, whatever the step comes to.

When it is wrong: the limits of those that come next are not foreseen, so places are taken when they arrive.
"""

from __future__ import annotations

from math import isinf

import numpy as np
import numpy.typing as npt

from setpoint.policy.forecast import Machine
from setpoint.policy.order import aged_free
from setpoint.policy.views import INTERACTIVE, Columns, StepView


def without_limits(columns: Columns) -> npt.NDArray[np.bool_]:
    """Who is interactive and has neither a deadline nor a limit on gaps."""
    unlimited = np.isinf(columns.deadline_s) & np.isinf(columns.gap_s)
    return np.asarray(unlimited & (columns.request_class == INTERACTIVE), dtype=np.bool_)


def most_joins(step: StepView, machine: Machine) -> int:
    """Requests without limits that may join now."""
    if isinf(machine.allowed_s):
        return len(step.waiting)
    running = len(step.running)
    aged = aged_free(step.waiting, now_s=step.now_s) and not aged_free(step.running, now_s=step.now_s)
    least = 1 if aged or not running else 0
    spare_s = machine.allowed_s - machine.step_s(running, machine.floor_tokens)
    return max(least, int(spare_s / max(machine.sequence_s, 1e-9)))
