"""What is to be sent next, and when: the plan's own arrivals, the slots of a closed loop, turns that follow, retries.

Pure bookkeeping on the time axis of the plan, whose zero is the start of the run; nothing here reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from setpoint.record import Phase

if TYPE_CHECKING:
    from setpoint.measure.backlog import Flight
    from setpoint.workload.plan import LoadPlan, PlannedRequest


@dataclass(slots=True, eq=False)
class Departure:
    """One request to be sent at ``due_s``; ``planned`` has the instant and the phase that it came to be intended for.

    payload: its bytes, ``None`` for a request that the plan alone decides. flight: set if it is another attempt.
    """

    due_s: float
    planned: PlannedRequest
    payload: bytes | None = None
    flight: Flight | None = None


class Agenda:
    """Departures in the order of their times.

    starters: the requests that follow no other, in order; those of a closed loop depart when a slot is free. used_up_s: when
    a slot of a closed loop by time was free and found none of them left.
    """

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self.starters = [planned for planned in plan.requests if planned.follows is None]
        self._next = 0
        self._closed = plan.concurrency is not None
        self._free_s = [0.0] * (plan.concurrency or 0)
        self._later: list[tuple[float, int, Departure]] = []
        self._serial = 0
        self.used_up_s: float | None = None

    def offers(self, intended_s: float) -> bool:
        """Whether a request that comes to be intended at this instant still belongs to the load."""
        return not self._plan.by_time or intended_s < self._plan.duration_s

    def phase(self, planned: PlannedRequest, intended_s: float) -> Phase:
        """The phase of a request that came to be intended in the run."""
        if self._plan.by_time:
            return next((span.phase for span in self._plan.phases if intended_s < span.end_s), planned.phase)
        return planned.phase

    def shorten(self, plan: LoadPlan) -> None:
        """Go by a shorter plan from now on: turns after its end are let go. What was taken, and is tried again, stays."""
        taken = self.starters[: self._next]
        left = {planned.index for planned in plan.requests}
        self._plan = plan
        self.starters = taken + [planned for planned in self.starters[self._next :] if planned.index in left]
        self._later = [entry for entry in self._later if entry[2].flight is not None or self.offers(entry[2].due_s)]
        heapify(self._later)

    def add(self, departure: Departure) -> None:
        """Send this at its time."""
        self._serial += 1
        heappush(self._later, (departure.due_s, self._serial, departure))

    def free(self, now_s: float) -> None:
        """A slot of a closed loop is free from this instant on; nothing in an open loop."""
        if not self._closed:
            return
        heappush(self._free_s, now_s)
        left = len(self.starters) - self._next
        if self.used_up_s is None and len(self._free_s) > left and self._plan.by_time and self.offers(now_s):
            self.used_up_s = now_s

    def next_due_s(self) -> float | None:
        """When the next departure is due; ``None`` if there is none as things stand."""
        starter_s = self._starter_due_s()
        if not self._later:
            return starter_s
        return self._later[0][0] if starter_s is None else min(starter_s, self._later[0][0])

    def take(self) -> Departure:
        """The departure that is due next; there must be one."""
        starter_s = self._starter_due_s()
        if self._later and (starter_s is None or self._later[0][0] <= starter_s):
            return heappop(self._later)[2]
        assert starter_s is not None
        planned = self.starters[self._next]
        self._next += 1
        if self._closed:
            heappop(self._free_s)
            planned = replace(planned, intended_s=starter_s, phase=self.phase(planned, starter_s))
        return Departure(starter_s, planned)

    def unsent(self) -> list[PlannedRequest]:
        """Requests of an open loop that were intended by the plan and not taken."""
        return [] if self._closed else self.starters[self._next :]

    def _starter_due_s(self) -> float | None:
        if self._next == len(self.starters):
            return None
        if not self._closed:
            return self.starters[self._next].intended_s
        return self._free_s[0] if self._free_s and self.offers(self._free_s[0]) else None


def check_order(plan: LoadPlan) -> None:
    """Raise ``ValueError`` for a plan that cannot be sent as it stands."""
    last_s = 0.0
    indices = set()
    for planned in plan.requests:
        indices.add(planned.index)
        if planned.follows is not None:
            if planned.follows not in indices or planned.follows == planned.index:
                raise ValueError(f"plan: request {planned.index} follows {planned.follows}, which does not come before it")
            continue
        if plan.concurrency is None and planned.intended_s < last_s:
            raise ValueError(f"plan: request {planned.index} is intended at {planned.intended_s} s, before {last_s} s")
        last_s = planned.intended_s
    if plan.concurrency is not None and plan.concurrency < 1:
        raise ValueError(f"plan: concurrency is {plan.concurrency}; a closed loop needs at least one slot")
    if not plan.phases and plan.requests:
        raise ValueError("plan: there are requests and no phase")
