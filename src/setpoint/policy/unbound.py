"""Requests without limits beside those that have some: who of them may not join yet.

Rule: while the limits of others bound the length of a step (``Machine.allowed_s``), interactive requests that have neither a
deadline nor a limit on their gaps join only as far as a step of all decodes and the least prefill stays within it. Beside
nobody one joins all the same, and so does the oldest that has waited ``PATIENCE_S`` while no other such one is served.

When it is wrong: the limits of those that come next are not foreseen, so places are taken when they arrive.
"""

from __future__ import annotations

from math import isinf

import numpy as np
import numpy.typing as npt

from setpoint.policy.forecast import Machine
from setpoint.policy.order import PATIENCE_S
from setpoint.policy.views import INTERACTIVE, Columns, IntColumn, StepView, taken

BoolColumn = npt.NDArray[np.bool_]


def without_limits(columns: Columns) -> BoolColumn:
    """Who is interactive and has neither a deadline nor a limit on gaps."""
    unlimited = np.isinf(columns.deadline_s) & np.isinf(columns.gap_s)
    return np.asarray(unlimited & (columns.request_class == INTERACTIVE), dtype=np.bool_)


def held_back(step: StepView, waiting: IntColumn, machine: Machine) -> BoolColumn:
    """Which of ``waiting`` (indices of ``step.waiting``, in order) may not join now."""
    asking = taken(step.waiting, waiting)
    unlimited = without_limits(asking)
    if isinf(machine.allowed_s) or not unlimited.any():
        return np.zeros(len(waiting), dtype=np.bool_)
    running = len(step.running)
    spare_s = machine.allowed_s - machine.step_s(running, machine.floor_tokens)
    fits = int(spare_s / max(machine.sequence_s, 1e-9))
    exempt = _aged_one(asking, unlimited, step)
    if not running:
        fits = max(fits, 1)
    counted = unlimited & ~exempt
    return np.asarray(counted & (np.cumsum(counted) > fits), dtype=np.bool_)


def _aged_one(asking: Columns, unlimited: BoolColumn, step: StepView) -> BoolColumn:
    """The oldest of those without limits if it has waited too long and no other such one is served."""
    chosen = np.zeros(len(asking), dtype=np.bool_)
    served = without_limits(step.running) & (step.running.arrived_s + PATIENCE_S <= step.now_s)
    if not served.any():
        index = np.flatnonzero(unlimited & (asking.arrived_s + PATIENCE_S <= step.now_s))
        chosen[index[np.argsort(asking.arrived_s[index], kind="stable")[:1]]] = True
    return chosen
