"""Requests without limits beside those that have some: who of them may not join yet.

Rule: while the limits of others bound the length of a step (``Machine.allowed_s``), interactive requests that have neither a
deadline nor a limit on their gaps join only as far as a step of all decodes, those that wait with limits among them, and the
least prefill stays within it. Beside nobody one joins all the same, and so does the one whose turn it is for having waited too
long (``policy/order.py``, ``next_aged``). Admission counts those that wait without limits by the same rule.

When it is wrong: the limits of those that come next are not foreseen, so places are taken when they arrive.
"""

from __future__ import annotations

from math import isinf

import numpy as np

from setpoint.policy.forecast import Machine
from setpoint.policy.views import INTERACTIVE, BoolColumn, Columns, IntColumn, StepView, taken


def without_limits(columns: Columns) -> BoolColumn:
    """Who is interactive and has neither a deadline nor a limit on gaps."""
    unlimited = np.isinf(columns.deadline_s) & np.isinf(columns.gap_s)
    return np.asarray(unlimited & (columns.request_class == INTERACTIVE), dtype=np.bool_)


def limited_count(columns: Columns) -> int:
    """How many are interactive and have a deadline or a limit on gaps."""
    return int(np.count_nonzero((columns.request_class == INTERACTIVE) & ~without_limits(columns)))


def beyond_room(asking: Columns, machine: Machine, *, beside: int, least: int = 0, aged: int | None = None) -> BoolColumn:
    """Who of ``asking``, in order, has no limits and no room in the steps that those with limits allow.

    beside: answers under way, and those yet to come that have limits. least: so many have room whatever a step takes. aged: id
    of the one whose turn it is, who has room as well.
    """
    unlimited = without_limits(asking) & (asking.ids != aged)
    if isinf(machine.allowed_s) or not unlimited.any():
        return np.zeros(len(asking), dtype=np.bool_)
    spare_s = machine.allowed_s - machine.step_s(beside, machine.floor_tokens)
    fits = max(least, int(spare_s / max(machine.sequence_s, 1e-9)))
    return np.asarray(unlimited & (np.cumsum(unlimited) > fits), dtype=np.bool_)


def held_back(step: StepView, waiting: IntColumn, machine: Machine, *, aged: int | None = None) -> BoolColumn:
    """Which of ``waiting`` (indices of ``step.waiting``, in order) may not join now. aged: as in ``beyond_room``."""
    asking, running = taken(step.waiting, waiting), len(step.running)
    return beyond_room(asking, machine, beside=running + limited_count(asking), least=0 if running else 1, aged=aged)
