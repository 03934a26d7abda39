"""One timer for all streams: what is due is sent in one go, in order of its time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from setpoint.measure.histogram import LogHistogram
from setpoint.measure.timer import DueTimer

STEPS_PER_TICK = 512


class Steps(Protocol):
    """Something that goes on in steps."""

    def step(self) -> float | None:
        """Do the next step; returns the seconds from its due time to the next one's, ``None`` when it was the last."""


class Ticker:
    """Steps streams at their due times; a due time follows from the one before it, so that lateness does not add up.

    slowdown: factor on every gap as it begins. lag_s: how late the earliest step of each tick was.
    """

    def __init__(self, tick_s: float, slowdown: Callable[[], float] | None) -> None:
        self._tick_s = tick_s
        self._slowdown = slowdown
        self._heap: list[tuple[float, int, Steps]] = []
        self._entries = 0
        self._armed_s = float("inf")
        self._ticked_s = 0.0
        self._timer = DueTimer(self._tick)
        self.lag_s = LogHistogram()

    def start(self, steps: Steps, now_s: float, first_gap_s: float) -> None:
        """Begin: a step without a gap before it is done at once."""
        gap_s: float | None = first_gap_s
        if gap_s == 0.0:
            gap_s = steps.step()
        if gap_s is None:
            return
        if self._slowdown is not None:
            gap_s *= self._slowdown()
        self._entries += 1
        heapq.heappush(self._heap, (now_s + gap_s, self._entries, steps))
        self._arm(self._heap[0][0])

    def shift(self, by_s: float) -> None:
        """Put everything off by the same time."""
        self._heap = [(due_s + by_s, entry, steps) for due_s, entry, steps in self._heap]

    def close(self) -> None:
        """Step no more."""
        self._timer.close()
        self._heap.clear()

    def _arm(self, due_s: float) -> None:
        wake_s = max(due_s, self._ticked_s + self._tick_s)
        if wake_s < self._armed_s:
            self._armed_s = wake_s
            self._timer.set(wake_s)

    def _tick(self) -> None:
        self._armed_s = float("inf")
        now_s = self._ticked_s = monotonic()
        heap = self._heap
        slowdown = self._slowdown
        if heap and heap[0][0] <= now_s:
            self.lag_s.add(now_s - heap[0][0])
        for _ in range(STEPS_PER_TICK):
            if not heap or heap[0][0] > now_s:
                break
            due_s, entry, steps = heap[0]
            gap_s = steps.step()
            if gap_s is None:
                heapq.heappop(heap)
            else:
                if slowdown is not None:
                    gap_s *= slowdown()
                heapq.heapreplace(heap, (due_s + gap_s, entry, steps))
        if heap:
            self._arm(heap[0][0])
