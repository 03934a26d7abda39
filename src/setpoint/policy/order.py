"""Who is next: class, then fairness between tenants, then the earliest deadline, with bounded ageing for those without one.

Inside a class: earliest deadline first (optimal for one machine while nobody has to be late; Liu and Layland, 1973), least
remaining work as tie-break, arrival after that. A request without a deadline is ordered as if due ``PATIENCE_S`` from now;
the oldest that has waited so long goes first, one at a time: a flood of those that nobody waits for in time does not push
aside those that somebody does. Of the batch class, the oldest that has waited ``BATCH_PATIENCE_S`` is served first, one at a
time: nobody starves, and however many have aged, they never push the interactive aside together. Where nobody at all has a
deadline, the highest response ratio goes first, ``1 + wait / own prefill seconds`` (Brinch Hansen, 1971): short ones first,
and waiting makes anybody urgent. Where several tenants wait, ``policy/tenants.py`` interleaves them and deadlines order each
tenant's own; the oldest without a deadline that has waited ``PATIENCE_S`` goes before all tenants, one at a time, if its own
has nothing running.

When it is wrong: earliest deadline first serves those first who are late already, which is why the doomed are dropped; fairness
can place a tenant's lax request before another's urgent one.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from setpoint.policy.tenants import TenantCounters
from setpoint.policy.views import BATCH, INTERACTIVE, Columns, FloatColumn, IntColumn

PATIENCE_S = 30.0
BATCH_PATIENCE_S = 120.0


class Serving(NamedTuple):
    """What is served already: the first ``prompts`` of the columns are prompts under way; ``aged``: an answer is under way to
    one that went first because it had waited too long without a deadline (``next_aged``), so that no other goes first."""

    prompts: int = 0
    aged: bool = False


NOBODY: IntColumn = np.zeros(0, dtype=np.int64)


def urgency_keys(
    columns: Columns, *, now_s: float, token_s: float, tenants: TenantCounters | None = None, first: IntColumn = NOBODY
) -> FloatColumn:
    """Keys for ``np.lexsort``, least important first: arrival, tie, due, tenant, class. Shape (5, requests).

    first: who goes first for having waited too long (``next_aged``).
    """
    free = np.isinf(columns.deadline_s)
    aged = aged_batch(columns, now_s=now_s)
    kind = columns.request_class.astype(np.float64)
    kind[aged] = INTERACTIVE
    if free.all() and not len(aged):
        due_s = np.zeros(len(columns))
        tie = -response_ratios(columns, now_s=now_s, token_s=token_s)
    else:
        due_s = np.where(free, now_s + PATIENCE_S, columns.deadline_s)
        due_s[aged] = -inf
        due_s[first] = -inf
        tie = np.where(free, 0.0, columns.prefill_tokens)
    if tenants is None or len(columns) < 2 or (columns.tenant == columns.tenant[0]).all():
        start = np.zeros(len(columns))
    else:
        start = tenants.start_tags(columns, np.lexsort((columns.arrived_s, tie, due_s, kind)))
        starving = tenants.may_age(columns)
        overdue = _overdue(columns, starving & free & (columns.request_class == INTERACTIVE), now_s=now_s)
        start[[*aged[starving[aged]], *overdue]] = -inf
    return np.vstack((columns.arrived_s, tie, due_s, start, kind))


def next_aged(columns: Columns, serving: Serving, *, now_s: float) -> IntColumn:
    """Index of the interactive one without a deadline that has waited too long and goes first: a prompt under way before those
    that wait; empty for none."""
    free = np.isinf(columns.deadline_s) & (columns.request_class == INTERACTIVE) & (not serving.aged)
    under_way = free & (np.arange(len(columns)) < serving.prompts)
    found = _overdue(columns, under_way, now_s=now_s)
    return found if len(found) else _overdue(columns, free, now_s=now_s)


def _overdue(columns: Columns, among: npt.NDArray[np.bool_], *, now_s: float) -> IntColumn:
    """Index of the oldest of ``among`` if it has waited for ``PATIENCE_S``: it goes before every tenant, one at a time, or a
    steady queue of new tenants would keep an old one out for ever."""
    index = np.flatnonzero(among)
    oldest = index[np.argsort(columns.arrived_s[index], kind="stable")[:1]]
    return np.asarray(oldest[columns.arrived_s[oldest] + PATIENCE_S <= now_s], dtype=np.int64)


def order_rule(columns: Columns, *, now_s: float) -> str:
    """The code of the rule that decides first in ``urgency_keys``: class before tenants before deadlines."""
    if len(columns) < 2:
        return "alone"
    if columns.request_class.any() and (columns.request_class == INTERACTIVE).any():
        return "aged_batch" if len(aged_batch(columns, now_s=now_s)) else "class"
    if (columns.tenant != columns.tenant[0]).any():
        return "tenants"
    return "response_ratio" if np.isinf(columns.deadline_s).all() else "deadline"


def aged_batch(columns: Columns, *, now_s: float) -> IntColumn:
    """Index of the oldest batch request if it has waited long enough to be served first; empty otherwise."""
    batch = np.flatnonzero(columns.request_class == BATCH)
    if not len(batch):
        return batch
    oldest = batch[np.argsort(columns.arrived_s[batch], kind="stable")[:1]]
    return np.asarray(oldest[columns.arrived_s[oldest] + BATCH_PATIENCE_S <= now_s], dtype=np.int64)


def response_ratios(columns: Columns, *, now_s: float, token_s: float) -> FloatColumn:
    """``1 + wait / own prefill seconds`` of each request."""
    own_s = np.maximum(columns.prefill_tokens, 1) * max(token_s, 1e-9)
    return np.asarray(1.0 + (now_s - columns.arrived_s) / own_s, dtype=np.float64)


def most_urgent(keys: FloatColumn) -> IntColumn:
    """Indices by urgency, the most urgent first."""
    return np.asarray(np.lexsort(keys), dtype=np.int64)
