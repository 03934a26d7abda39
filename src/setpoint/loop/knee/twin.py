"""The fitted server, run on a virtual clock: what it would show at any rate, for as long as it takes."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

import numpy as np

from setpoint.loop.knee.model import ServerModel
from setpoint.statistics import BoolArray, FloatArray


@dataclass(frozen=True, slots=True)
class Outcome:
    """Shapes ``[n]``. e2e_s: from arrival, infinite where refused. met: how many were present when a request arrived.
    crowd: how many were present on average while it was there, itself included. refused: turned away on arrival."""

    e2e_s: FloatArray
    met: FloatArray
    crowd: FloatArray
    refused: BoolArray


def run_twin(
    model: ServerModel,
    arrival_s: FloatArray,
    work: FloatArray,
    refuse_from: FloatArray | None = None,
    *,
    with_crowd: bool = True,
) -> Outcome:
    """Serve ``arrival_s`` (ascending) from an empty start; ``work`` is seconds alone, shape ``[n]``.

    refuse_from: each request is refused if at least so many are present when it arrives, shape ``[n]``; ``None``: never.
    with_crowd: otherwise ``crowd`` is 0, which takes half the time. Work done is counted on one clock that all requests in
    service share, so an event costs a few operations whatever the number present: about 2 us a request.
    """
    n = len(arrival_s)
    speeds = model.speeds(n).tolist()
    most = n if model.most is None else model.most
    works, limits = work.tolist(), None if refuse_from is None else refuse_from.tolist()
    ends_s, met = [float("inf")] * n, [0] * n
    times_s, crowds = [0.0], [0]
    running: list[tuple[float, int]] = []
    waiting: deque[int] = deque()
    now_s = clock = 0.0
    present = 0
    push, pop, replace = heapq.heappush, heapq.heappop, heapq.heapreplace
    note_time, note_crowd = times_s.append, crowds.append
    for k, next_s in enumerate([*arrival_s.tolist(), float("inf")]):
        while running:
            speed = speeds[present]
            until_s = now_s + (running[0][0] - clock) / speed
            if until_s > next_s:
                clock += (next_s - now_s) * speed
                break
            now_s = until_s
            clock, job = running[0]
            ends_s[job] = now_s
            if waiting:
                following = waiting.popleft()
                replace(running, (clock + works[following], following))
            else:
                pop(running)
            present -= 1
            if with_crowd:
                note_time(now_s)
                note_crowd(present)
        if k == n:
            break
        now_s = next_s
        met[k] = present
        if limits is not None and present >= limits[k]:
            continue
        present += 1
        if len(running) < most:
            push(running, (clock + works[k], k))
        else:
            waiting.append(k)
        if with_crowd:
            note_time(now_s)
            note_crowd(present)
    end_s = np.array(ends_s)
    crowd = _crowd(arrival_s, end_s, np.array(times_s), np.array(crowds)) if with_crowd else np.zeros(n)
    return Outcome(end_s - arrival_s, np.array(met, dtype=np.float64), crowd, np.isinf(end_s))


def _crowd(arrival_s: FloatArray, end_s: FloatArray, times_s: FloatArray, present: FloatArray) -> FloatArray:
    """The mean of ``present`` (a step function of ``times_s``) between arrival and end of each request."""
    area = np.concatenate(([0.0], np.cumsum(np.diff(times_s) * present[:-1])))
    left_s = np.where(np.isinf(end_s), arrival_s, end_s)
    inside = np.interp(left_s, times_s, area) - np.interp(arrival_s, times_s, area)
    stay_s = left_s - arrival_s
    return np.where(stay_s > 0.0, inside / np.where(stay_s > 0.0, stay_s, 1.0), 1.0)
