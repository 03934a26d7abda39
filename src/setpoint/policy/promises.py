"""When a refused request should come again, and a ledger that keeps room for it.

Rule: a refused request is told ``due = max(when the backlog has drained enough, the due time of the promise before) + own
work x share honoured / room``, room being capacity less fresh load: promises are spaced as fast as the room that is left can
take them. The promise before counts no further than ``FARTHEST`` times what the work still promised needs (until it came back
or is ``GRACE_S`` overdue): clients who never come hold nobody up.

Work is in machine seconds beyond the fixed cost of a step. Capacity is the work per second of the fullest seconds among those
in which requests were being refused: a fresh one may be refused for the sake of a promise while the machine is not full.
Fresh load is what was let in without a promise (who was refused is in the ledger already), the median over the last
``WINDOWS`` windows, so that a burst, which is what makes promises, does not pass for the load that lasts. A later fresh request
sees the promised work that falls due before its own forecast ends as work ahead of it.

A request that comes back is known again by the fingerprint of its prompt; one that has not come within
``GRACE_S`` counts as not honoured.

Defaults: at most 4096 promises; room is kept ``GRACE_S`` after the due time (a header in whole seconds makes clients come up
to one late), the promise itself ``REMEMBER_S``. The share of promises that is taken up is learned, so that clients who
never come back cost little. When it is wrong: if the load that lasts grows, promises come due in a full system and
displace fresh requests; two clients with the same prompt are one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from math import ceil
from statistics import median

MOST_PROMISES = 4096
GRACE_S = 1.5
REMEMBER_S = 30.0
EARLY_S = 0.05
WINDOW_S = 2.0
WINDOWS = 30
LEAST_SHARE = 0.1
LEAST_HONOURED = 0.05
HONOURED_RATE = 0.05
FARTHEST = 1.5
LEAST_WAIT_S = 0.1
MOST_WAIT_S = 120.0
FULL_WINDOW_S = 1.0
FULL_WINDOWS = 20
FULL_QUANTILE = 0.9


@dataclass(frozen=True, slots=True)
class Promise:
    """Room for ``tokens`` of prompt and ``answers`` of ``output_tokens`` each at ``due_s``."""

    due_s: float
    tokens: int
    output_tokens: int
    work_s: float
    answers: int = 1


class FreshLoad:
    """Work per second of requests let in the first time they come: the median over windows of a minute."""

    def __init__(self) -> None:
        self._windows: deque[float] = deque(maxlen=WINDOWS)
        self._began_s: float | None = None
        self._sum = 0.0
        self.rate = 0.0  # Machine seconds per second; 0 before the first window is over.

    def let_in(self, now_s: float, work_s: float) -> None:
        """A request was let in."""
        self.until(now_s)
        self._sum += work_s

    def until(self, now_s: float) -> None:
        """End the windows that are over by then."""
        if self._began_s is None or now_s < self._began_s:
            self._began_s = now_s
        passed = int((now_s - self._began_s) / WINDOW_S)
        if passed:
            self._windows.append(self._sum / WINDOW_S)
            self._windows.extend([0.0] * min(passed - 1, WINDOWS))
            self._began_s += passed * WINDOW_S
            self._sum = 0.0
            self.rate = median(self._windows)


class Capacity:
    """Work done per second while the system was full: a high quantile of the last windows of such time."""

    def __init__(self) -> None:
        self._windows: deque[float] = deque(maxlen=FULL_WINDOWS)
        self._work_s = 0.0
        self._wall_s = 0.0
        self.rate = 0.5  # Machine seconds of requests' work per second; this much before a window is over.

    def full_step(self, work_s: float, wall_s: float) -> None:
        """A step while requests were being refused."""
        self._work_s += work_s
        self._wall_s += wall_s
        if self._wall_s < FULL_WINDOW_S:
            return
        self._windows.append(self._work_s / self._wall_s)
        self._work_s = self._wall_s = 0.0
        self.rate = sorted(self._windows)[ceil(FULL_QUANTILE * (len(self._windows) - 1))]


class Promises:
    """The ledger. ``promise`` on refusal, ``returned`` when somebody asks, ``due_before`` for who is fresh."""

    def __init__(self) -> None:
        self.fresh = FreshLoad()
        self.capacity = Capacity()
        self.honoured_share = 1.0
        self._by_fingerprint: dict[int, Promise] = {}
        self._by_due: list[tuple[float, int]] = []  # Due time and fingerprint of each, in order.
        self._overdue = 0  # How many of the first of them nobody is expected to take up any more.
        self._owed_s = 0.0  # Work of the others.
        self._last_due_s = 0.0

    def __len__(self) -> int:
        return len(self._by_fingerprint)

    def restart(self) -> None:
        """The system is another from now on: what it can do and what load it bears are to be seen anew."""
        self.fresh = FreshLoad()
        self.capacity = Capacity()

    def returned(self, fingerprint: int, now_s: float, *, answers: int = 1) -> Promise | None:
        """The promise that the request with this prompt was given, if it has one for so many answers."""
        self._expire(now_s)
        promise = self._by_fingerprint.get(fingerprint) if fingerprint else None
        return promise if promise is not None and promise.answers >= answers else None

    def kept(self, fingerprint: int) -> None:
        """The request came back in time and was admitted: its promise is done."""
        if fingerprint in self._by_fingerprint:
            self._forget(fingerprint)
            self._learn(honoured=True)

    def promise(
        self,
        fingerprint: int,
        now_s: float,
        *,
        after_s: float,
        tokens: int,
        output_tokens: int,
        work_s: float,
        answers: int = 1,
    ) -> float:
        """Promise room at the earliest moment at least ``after_s`` from now; gives the moment.

        work_s: machine seconds of the prompt and all its ``answers``, of ``output_tokens`` each.
        """
        self._expire(now_s)
        self.fresh.until(now_s)
        if fingerprint in self._by_fingerprint:
            self._forget(fingerprint)
        room = max(LEAST_SHARE * self.capacity.rate, self.capacity.rate - self.fresh.rate)
        each_s = self.honoured_share / max(room, 1e-6)
        free_s = now_s + max(after_s, LEAST_WAIT_S)
        last_s = min(self._last_due_s, free_s + FARTHEST * self._owed_s * each_s)
        due_s = min(max(free_s, last_s) + work_s * each_s, now_s + MOST_WAIT_S)
        self._last_due_s = due_s
        if fingerprint:
            self._by_fingerprint[fingerprint] = Promise(due_s, tokens, output_tokens, work_s, answers)
            insort(self._by_due, (due_s, fingerprint))
            self._owed_s += work_s
            while len(self._by_fingerprint) > MOST_PROMISES:
                self._forget(self._by_due[0][1])
        return due_s

    def due_before(self, now_s: float, until_s: float) -> list[Promise]:
        """Promises likely to be taken up between now and ``until_s``: of those due by then the share that is honoured, of those
        overdue by less than ``GRACE_S`` so many as come in such a span."""
        self._expire(now_s)
        due: list[Promise] = []
        overdue: list[Promise] = []
        for place in range(bisect_left(self._by_due, (now_s - GRACE_S, 0)), len(self._by_due)):
            due_s, fingerprint = self._by_due[place]
            if due_s > until_s:
                break
            (due if due_s >= now_s else overdue).append(self._by_fingerprint[fingerprint])
        late = len(overdue) * min(1.0, (until_s - now_s) / GRACE_S)
        return (due + overdue)[: int((len(due) + late) * self.honoured_share + 0.5)]

    def _expire(self, now_s: float) -> None:
        while self._overdue < len(self._by_due) and self._by_due[self._overdue][0] + GRACE_S < now_s:
            self._owed_s -= self._by_fingerprint[self._by_due[self._overdue][1]].work_s
            self._overdue += 1
            self._learn(honoured=False)
        forgotten = 0
        while forgotten < self._overdue and self._by_due[forgotten][0] + REMEMBER_S <= now_s:
            del self._by_fingerprint[self._by_due[forgotten][1]]
            forgotten += 1
        del self._by_due[:forgotten]
        self._overdue -= forgotten
        self._settle()

    def _forget(self, fingerprint: int) -> None:
        """Nobody is expected with this prompt any more."""
        promise = self._by_fingerprint.pop(fingerprint)
        place = bisect_left(self._by_due, (promise.due_s, fingerprint))
        del self._by_due[place]
        if place < self._overdue:
            self._overdue -= 1
        else:
            self._owed_s -= promise.work_s
        self._settle()

    def _settle(self) -> None:
        """Sums of many differences are never quite 0."""
        if self._overdue == len(self._by_due):
            self._owed_s = 0.0

    def _learn(self, *, honoured: bool) -> None:
        share = self.honoured_share + HONOURED_RATE * (float(honoured) - self.honoured_share)
        self.honoured_share = max(LEAST_HONOURED, share)
