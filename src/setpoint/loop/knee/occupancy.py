"""Who was in the server when, from a probe's trace: the client of an open loop sees every arrival and every end."""

from __future__ import annotations

import numpy as np

from setpoint.loop.knee.probes import ProbeTrace
from setpoint.statistics import BoolArray, FloatArray, IntArray


class Occupancy:
    """The admitted requests of a probe and the number present between any two events (an arrival or an end).

    times_s: the events in order, shape ``[2n]``. present: how many were there from the event on, shape ``[2n]``.
    arrived, left: each request's events as indices into these, shape ``[n]``. ended: False for a request that was cut off
    or failed, whose work is not known.
    """

    def __init__(self, trace: ProbeTrace) -> None:
        rows = np.flatnonzero(~trace.refused)
        arrival_s, end_s = trace.arrival_s[rows], trace.end_s[rows]
        n = len(rows)
        self.rows: IntArray = rows
        self.ended: BoolArray = trace.complete[rows] & ~np.isnan(end_s)
        end_s = np.maximum(np.where(np.isnan(end_s), trace.cutoff_s, end_s), arrival_s)
        moments_s = np.concatenate((arrival_s, end_s))
        # At one instant arrivals go first: a request ends after it came.
        order = np.lexsort((np.repeat((0, 1), n), moments_s))
        place = np.empty(2 * n, dtype=np.int64)
        place[order] = np.arange(2 * n)
        self.times_s: FloatArray = moments_s[order]
        self.present: IntArray = np.cumsum(np.repeat((1, -1), n)[order])
        self.arrived, self.left = place[:n], place[n:]
        self._lasting_s = np.diff(self.times_s)
        self._ends_in_order: IntArray = np.sort(self.left)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def most_present(self) -> int:
        """The most requests that were there at once."""
        return int(self.present.max()) if len(self) else 0

    def before_end(self) -> IntArray:
        """How many were present just before each request left, itself included."""
        return self.present[self.left] + 1

    def before_arrival(self, instants_s: FloatArray) -> IntArray:
        """How many were present just before each instant."""
        place = np.searchsorted(self.times_s, instants_s, side="left")
        return np.concatenate(([0], self.present))[place]

    def started(self, most: int | None) -> IntArray:
        """The event at which each request began if at most ``most`` were served at once, in order of arrival."""
        if most is None or most >= len(self):
            return self.arrived
        began = self.arrived.copy()
        began[most:] = np.maximum(began[most:], self._ends_in_order[: len(began) - most])
        return began

    def clock(self, speed: FloatArray) -> FloatArray:
        """The work that a request served throughout would have got by each event; ``speed[k]`` with k present."""
        return np.concatenate(([0.0], np.cumsum(self._lasting_s * speed[self.present[:-1]])))

    def crowd(self) -> FloatArray:
        """How many were present on average while each request was there, itself included."""
        area = np.concatenate(([0.0], np.cumsum(self._lasting_s * self.present[:-1])))
        stay_s = self.times_s[self.left] - self.times_s[self.arrived]
        inside = area[self.left] - area[self.arrived]
        return np.where(stay_s > 0, inside / np.where(stay_s > 0, stay_s, 1.0), self.present[self.arrived])
