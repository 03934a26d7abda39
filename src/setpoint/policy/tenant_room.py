"""Room that a tenant who takes more than its share leaves to the others: order alone helps nobody who is refused at the door.

Offered and admitted work are followed by tenant, both forgotten with ``HALF_LIFE_S``. A tenant whose part of the admitted work
is over an equal share, 1/n among the n that have asked in the last ``RECENT_S``, is let in only as far as the others hardly
notice: a typical prompt of theirs that came next would have its first token within ``ISOLATION`` of what it takes alone,

    first(n) <= first(0) x ISOLATION / (strength x contention)
    first(n)   = (1 + ceil(prompt / budget(n))) x step of n answers + prompt x seconds a token
    strength   = min(1, FACTOR x the others' part of the offered work) x min(1, excess / FULL_EXCESS)
    contention = (offered work a second / work a second of the longest steps - LOADED_FROM) / (LOADED - LOADED_FROM), in 0 to 1

n being the answers under way with this one more, and the excess a tenant's part of the offered work less that equal share:
tenants that send alike keep next to nothing for each other, and where the machine can serve all that comes nobody is kept
out. While its strength is over ``BEHIND_FROM``, what it has waiting goes after everybody else's: counters alone
(``policy/tenants.py``) put a prompt of its before one of theirs. Tenants within their share, and a tenant alone, are judged
as if there were nobody else.

Defaults: from 0.4 of what steps as long as the limits allow would do, wholly at 0.6 (a machine is full at 0.4 to 0.8 of that:
queues are short and prompts come when they will); half a life of 10 s; 1.35 times, which is about 1.5 times at the P95 (prompts
are judged by their mean, and a longer one takes more steps beside answers); twelve times what the others send, all of it from
an excess of 0.25 on. What that buys and costs is in docs/contention.md. The newest 256 tenants are followed. When it is wrong:
a tenant that sends in rare bursts is forgotten between them; the room kept for one that does not come is not sold.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, inf, log

from setpoint.policy.forecast import Machine

HALF_LIFE_S = 10.0
RECENT_S = 10.0
FACTOR = 12.0
ISOLATION = 1.35
FULL_EXCESS = 0.25
LOADED_FROM, LOADED = 0.4, 0.6
BEHIND_FROM = 0.5
LOOK_EVERY_S = 0.1
MOST_TENANTS = 256
PROMPT_RATE = 0.1


@dataclass(frozen=True, slots=True)
class Others:
    """Whom a tenant over its share leaves room to: their typical prompt, and how far that counts, over 0 to 1.

    offered_share: machine seconds of work that come a second, of all tenants.
    """

    prompt_tokens: float
    strength: float
    offered_share: float = inf

    def alone_s(self, machine: Machine) -> float:
        """Seconds to the first token of such a prompt on an idle machine."""
        return machine.step_s(1, self.prompt_tokens)

    def beside_s(self, machine: Machine, decodes: int) -> float:
        """The same beside so many answers: after the step that is being computed, in chunks that fit."""
        steps = ceil(self.prompt_tokens / max(1, machine.budget(decodes)))
        return (1 + steps) * machine.step_s(decodes, 0) + self.prompt_tokens * machine.token_s

    def most_s(self, machine: Machine, *, longest_s: float = inf) -> float:
        """What they may come to wait; ``inf`` where the machine can serve all that comes.

        longest_s: the longest step that everybody's gaps allow.
        """
        counts = self.strength * self._contention(machine, longest_s)
        return self.alone_s(machine) * ISOLATION / counts if counts > 0.0 else inf

    def _contention(self, machine: Machine, longest_s: float) -> float:
        full_s = max(min(machine.step_s(0, machine.budget_tokens), longest_s), machine.step_s(1, machine.floor_tokens))
        load = self.offered_share / max(1e-9, 1.0 - machine.base_s / full_s)
        return max(0.0, min(1.0, (load - LOADED_FROM) / (LOADED - LOADED_FROM)))


class _Flow:
    """Work of one tenant, both sums as of ``at_s``; ``asked_s``: when it asked last."""

    __slots__ = ("admitted_s", "asked_s", "at_s", "offered_s", "prompt_tokens")

    def __init__(self, at_s: float, prompt_tokens: int) -> None:
        self.at_s = self.asked_s = at_s
        self.prompt_tokens = float(prompt_tokens)
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
        self._far_over: frozenset[int] = frozenset()
        self._looked_s = -inf

    def asked(self, tenant: int, now_s: float, work_s: float, prompt_tokens: int) -> None:
        """A request of ``tenant`` with so much work came, so many tokens of its prompt not cached."""
        flow = self._flows.setdefault(tenant, _Flow(now_s, prompt_tokens))
        flow.prompt_tokens += PROMPT_RATE * (prompt_tokens - flow.prompt_tokens)
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

    def of(self, tenant: int, now_s: float) -> Others | None:
        """To whom ``tenant`` leaves room now; ``None`` if to nobody."""
        if len(self._flows) < 2 or tenant not in self._flows:
            return None
        recent = self._recent(now_s)
        own = self._flows[tenant]
        own.fade(now_s)
        recent[tenant] = own
        shares = _Shares(recent)
        strength = shares.strength(own)
        if strength <= 0.0:
            return None
        longest = max(flow.prompt_tokens for each, flow in recent.items() if each != tenant)
        return Others(longest, strength, shares.offered_s * log(2) / HALF_LIFE_S)

    def far_over(self, now_s: float) -> frozenset[int]:
        """Tenants whose strength is over ``BEHIND_FROM``, as of the last ``LOOK_EVERY_S``."""
        if len(self._flows) >= 2 and not self._looked_s <= now_s < self._looked_s + LOOK_EVERY_S:
            self._looked_s = now_s
            recent = self._recent(now_s)
            shares = _Shares(recent)
            self._far_over = frozenset(each for each, flow in recent.items() if shares.strength(flow) > BEHIND_FROM)
        return self._far_over

    def _recent(self, now_s: float) -> dict[int, _Flow]:
        """Who has asked of late, as of now."""
        found = {each: flow for each, flow in self._flows.items() if now_s - flow.asked_s <= RECENT_S}
        for flow in found.values():
            flow.fade(now_s)
        return found


class _Shares:
    """What all who asked of late were offered and admitted together, summed once."""

    def __init__(self, recent: Mapping[int, _Flow]) -> None:
        self._count = len(recent)
        self._admitted_s = sum(flow.admitted_s for flow in recent.values())
        self.offered_s = sum(flow.offered_s for flow in recent.values())

    def strength(self, own: _Flow) -> float:
        """How far what others would wait counts for the tenant of ``own``, one of them: 0 within its share."""
        if self._count < 2 or own.admitted_s * self._count <= self._admitted_s or self.offered_s <= own.offered_s:
            return 0.0
        share = own.offered_s / self.offered_s
        return max(0.0, min(1.0, FACTOR * (1.0 - share)) * min(1.0, (share - 1.0 / self._count) / FULL_EXCESS))
