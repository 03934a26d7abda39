"""The accounts of one server: every request in exactly one class, every duration counted once. For one event loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from setpoint.server.live.checks import E2E, ITL, QUEUE_WAIT, TPOT, TTFT, Objectives
from setpoint.server.live.histogram import Bins, DurationCounts, fine_bounds

if TYPE_CHECKING:
    from setpoint.server.live.account import RequestAccount

REASONS_MAX: Final = 32
OTHER: Final = "other"
REFUSALS_KEPT: Final = 32
OUTCOMES_KEPT: Final = 4096

# Seconds. Token gaps are resolved from 1 ms, whole requests up to ten minutes.
TOKEN_BUCKETS_S: Final = tuple(
    ms / 1000 for ms in (1, 2.5, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 150, 200, 300, 500, 1000, 2500, 5000)
)
WAIT_BUCKETS_S: Final = tuple(
    ms / 1000 for ms in (1, 5, 10, 25, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000, 10000, 20000, 80000)
)
REQUEST_BUCKETS_S: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 600.0)
BUCKETS_S: Final = {
    TTFT: WAIT_BUCKETS_S,
    ITL: TOKEN_BUCKETS_S,
    TPOT: TOKEN_BUCKETS_S,
    E2E: REQUEST_BUCKETS_S,
    QUEUE_WAIT: WAIT_BUCKETS_S,
}


class Ending(StrEnum):
    """How an offered request ended, as its client saw it; ``cancelled``: the client left."""

    OK = "ok"
    LATE = "late"
    SHED = "shed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class BoundedCounts:
    """Counts by reason; from ``REASONS_MAX`` reasons on, new ones count as ``other``."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, reason: str) -> None:
        """Count one."""
        known = reason in self._counts or len(self._counts) < REASONS_MAX
        key = reason if known else OTHER
        self._counts[key] = self._counts.get(key, 0) + 1

    def items(self) -> list[tuple[str, int]]:
        """(reason, count), most first."""
        return sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self._counts.values())


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was turned away: when (server clock), whose it was, the reason's code and whole, when to come back."""

    at_s: float
    name: str
    code: str
    reason: str
    retry_after_s: float | None


@dataclass(slots=True)
class Latency:
    """One quantity: of the requests that have a limit on it, and of the others. ``met`` counts against own limits."""

    bounds_s: tuple[float, ...]
    judged: DurationCounts
    free: DurationCounts
    judged_total: int = 0
    met_total: int = 0


def _latency(metric: str, objectives: Objectives) -> Latency:
    bounds_s = fine_bounds(objectives.limits_s(metric), BUCKETS_S[metric])
    return Latency(bounds_s, DurationCounts(bounds_s), DurationCounts(bounds_s))


@dataclass(slots=True)
class LiveBook:
    """Totals since the start. ``offered`` = the sum of ``ended`` + ``unfinished``; ``invalid`` requests were not offered.

    outcomes: of the newest that ended, when each had arrived and how it ended (one whose client gave up after a limit had
    passed is ``late`` here, one over its own quota is none); whoever reads them takes them out. open: those that were offered
    and have not ended.
    """

    objectives: Objectives = field(default_factory=Objectives)
    offered: int = 0
    invalid: int = 0
    ended: dict[Ending, int] = field(default_factory=lambda: dict.fromkeys(Ending, 0))
    shed_reasons: BoundedCounts = field(default_factory=BoundedCounts)
    refusals: deque[Refusal] = field(default_factory=lambda: deque(maxlen=REFUSALS_KEPT))
    retry_after: DurationCounts = field(default_factory=lambda: DurationCounts(fine_bounds((), WAIT_BUCKETS_S)))
    step: DurationCounts = field(default_factory=lambda: DurationCounts(fine_bounds((), TOKEN_BUCKETS_S)))
    latencies: dict[str, Latency] = field(default_factory=dict)
    outcomes: deque[tuple[float, Ending]] = field(default_factory=lambda: deque(maxlen=OUTCOMES_KEPT))
    open: set[RequestAccount] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.latencies = {metric: _latency(metric, self.objectives) for metric in BUCKETS_S}

    @property
    def unfinished(self) -> int:
        """Offered requests that have not ended."""
        return self.offered - sum(self.ended.values())

    def shed(self, refusal: Refusal) -> None:
        """Remember why a request was turned away."""
        self.shed_reasons.add(refusal.code)
        self.refusals.append(refusal)
        if refusal.retry_after_s is not None:
            self.retry_after.observe(refusal.retry_after_s)

    def judge(self, metric: str, *, met: bool) -> None:
        """A request's ``metric`` was held against its own limit."""
        latency = self.latencies[metric]
        latency.judged_total += 1
        latency.met_total += met

    def lost(self, metric: str) -> None:
        """A request that has a limit on ``metric`` ended without coming so far: that limit was missed."""
        self.judge(metric, met=False)
        self.latencies[metric].judged.lost += 1

    def cut(self) -> dict[str, tuple[Bins, Bins]]:
        """For each metric the bins (judged, free) since the last cut."""
        return {name: (each.judged.cut(), each.free.cut()) for name, each in self.latencies.items()}

    def steps(self, seconds: Iterable[float]) -> None:
        """Durations of engine steps."""
        for each in seconds:
            self.step.observe(each)

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` if the totals contradict each other."""
        assert self.unfinished >= 0, "more requests ended than were offered"
        assert self.shed_reasons.total == self.ended[Ending.SHED], "a shed request without a reason"
        for name, each in self.latencies.items():
            assert 0 <= each.met_total <= each.judged_total, f"{name}: more met than judged"
