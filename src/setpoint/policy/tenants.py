"""Fairness between tenants of one class: the virtual token counter (VTC; Sheng et al., Fairness in Serving LLMs, OSDI 2024).

Each tenant has a counter of the service it got, ``prompt tokens computed + OUTPUT_WEIGHT x output tokens``; the tenant with
the lowest goes first. A tenant that comes back after having nothing queued is lifted to the lowest counter of those who have:
nobody saves up credit by being idle, nor by having a little running all the time. To order a whole queue at once, each
tenant's requests, in their own order, are given start tags, counter plus the cost of those before them, and the tags are merged
(start-time fair queueing). Whoever is far over its share goes after all others (``put_behind``).

Defaults: an output token weighs 2 prompt tokens, as in the paper; the newest 1024 tenants are remembered. When it is wrong:
the cost of what is still queued counts prompts only; a tenant forgotten and seen again starts at the lowest counter.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

import numpy as np
import numpy.typing as npt

from setpoint.policy.views import Columns, FloatColumn, IntColumn

OUTPUT_WEIGHT = 2.0
MOST_TENANTS = 1024
BEHIND = 1e15


class TenantCounters:
    """Service per tenant. Changes through ``present`` and ``charge`` only."""

    def __init__(self) -> None:
        self._served: dict[int, float] = {}
        self._active: frozenset[int] = frozenset()
        self._behind: frozenset[int] = frozenset()
        self._under_way: IntColumn = np.zeros(0, dtype=np.int64)

    def put_behind(self, tenants: frozenset[int]) -> None:
        """Who goes after everybody else until the next call: whoever is far over its share (``policy/tenant_room.py``)."""
        self._behind = tenants

    def under_way(self, tenants: IntColumn) -> None:
        """Who has something running now, once or more each."""
        self._under_way = tenants

    def may_age(self, columns: Columns) -> npt.NDArray[np.bool_]:
        """Whose requests may go before every tenant once they have waited too long: not those of one that has something running
        or goes behind. Shape (requests,)."""
        return ~(np.isin(columns.tenant, self._under_way) | np.isin(columns.tenant, list(self._behind)))

    def present(self, active: Iterable[int]) -> None:
        """Who has something queued now; whoever had not before is lifted."""
        now = frozenset(active)
        if now == self._active:
            return
        stayed = [self._served.get(tenant, 0.0) for tenant in now & self._active]
        level = min(stayed, default=max(self._served.values(), default=0.0) if len(now) > 1 else 0.0)
        for tenant in sorted(now - self._active):
            self._served[tenant] = max(self._served.pop(tenant, 0.0), level)
        while len(self._served) > MOST_TENANTS:
            oldest = next((tenant for tenant in self._served if tenant not in now), None)
            if oldest is None:
                break
            del self._served[oldest]
        self._active = now

    def charge(self, tenant: int, *, prompt_tokens: int = 0, output_tokens: int = 0) -> None:
        """``tenant`` got this service."""
        self._served[tenant] = self._served.get(tenant, 0.0) + prompt_tokens + OUTPUT_WEIGHT * output_tokens

    def level(self, tenant: int) -> float:
        """The tenant's counter; that of the least served active tenant for somebody new."""
        least = min((self._served.get(each, 0.0) for each in self._active), default=0.0)
        served = self._served.get(tenant)
        return least if served is None else served if tenant in self._active else max(served, least)

    def start_tags(self, columns: Columns, order: IntColumn) -> FloatColumn:
        """Start tag of each request, ``order`` being the order inside each tenant. Shape (requests,)."""
        tags = np.full(len(columns), inf)
        for tenant in np.unique(columns.tenant).tolist():
            own = order[columns.tenant[order] == tenant]
            cost = columns.prefill_tokens[own].astype(np.float64)
            tags[own] = self.level(int(tenant)) + np.cumsum(cost) - cost + (BEHIND if tenant in self._behind else 0.0)
        return tags
