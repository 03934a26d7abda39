"""Room that a tenant who takes more than its share leaves to the others: order alone helps nobody who is refused at the door.

Offered and admitted work are followed by tenant, both forgotten with ``HALF_LIFE_S``. A tenant whose part of the admitted work
is over an equal share, 1/n among the n that have asked in the last ``RECENT_S``, is judged with a part of every limit kept
back, so that what others send finds places and short steps:

    min(MOST, FACTOR x the others' part of the offered work) x min(1, excess / FULL_EXCESS)

its excess being its part of the admitted work less that equal share: tenants that send alike keep next to nothing for each
other. Tenants within their share, and a tenant alone, are judged as if there were nobody else.

Defaults: half a life of 10 s; eight times what the others send, at most 0.6, all of it from an excess of 0.25 on. What that
buys and costs is in docs/contention.md. The newest 256 tenants are followed. When it is wrong: a tenant that sends in rare
bursts is forgotten between them; the room kept for one that does not come is not sold.
"""

from __future__ import annotations

from collections import OrderedDict

HALF_LIFE_S = 10.0
RECENT_S = 10.0
FACTOR = 8.0
MOST = 0.6
FULL_EXCESS = 0.25
MOST_TENANTS = 256


class _Flow:
    """Work of one tenant, both sums as of ``at_s``; ``asked_s``: when it asked last."""

    __slots__ = ("admitted_s", "asked_s", "at_s", "offered_s")

    def __init__(self, at_s: float) -> None:
        self.at_s = self.asked_s = at_s
        self.offered_s = self.admitted_s = 0.0

    def fade(self, now_s: float) -> None:
        """To ``now_s``."""
        if now_s > self.at_s:
            kept = 0.5 ** ((now_s - self.at_s) / HALF_LIFE_S)
            self.offered_s *= kept
            self.admitted_s *= kept
            self.at_s = now_s


class TenantRoom:
    """``asked`` for every request, ``of`` before it is judged, ``admitted`` if it may wait."""

    def __init__(self) -> None:
        self._flows: OrderedDict[int, _Flow] = OrderedDict()

    def asked(self, tenant: int, now_s: float, work_s: float) -> None:
        """A request of ``tenant`` with so much work came."""
        flow = self._flows.setdefault(tenant, _Flow(now_s))
        self._flows.move_to_end(tenant)
        flow.fade(now_s)
        flow.asked_s = now_s
        flow.offered_s += work_s
        while len(self._flows) > MOST_TENANTS:
            self._flows.popitem(last=False)

    def admitted(self, tenant: int, work_s: float) -> None:
        """It got in."""
        if tenant in self._flows:
            self._flows[tenant].admitted_s += work_s

    def of(self, tenant: int, now_s: float) -> float:
        """The part of every limit that ``tenant`` leaves to others now, from 0 to ``MOST``."""
        if len(self._flows) < 2:
            return 0.0
        recent = {each: flow for each, flow in self._flows.items() if now_s - flow.asked_s <= RECENT_S or each == tenant}
        if len(recent) < 2 or tenant not in recent:
            return 0.0
        for flow in recent.values():
            flow.fade(now_s)
        admitted_s = sum(flow.admitted_s for flow in recent.values())
        offered_s = sum(flow.offered_s for flow in recent.values())
        own = recent[tenant]
        if own.admitted_s * len(recent) <= admitted_s or offered_s <= 0.0:
            return 0.0
        excess = own.admitted_s / admitted_s - 1.0 / len(recent)
        return min(MOST, FACTOR * (1.0 - own.offered_s / offered_s)) * min(1.0, excess / FULL_EXCESS)
