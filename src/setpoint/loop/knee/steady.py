"""The share of bad requests that a fitted server would show: on given arrivals, and in the long run at any rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from setpoint.loop.knee.model import ServerModel
from setpoint.loop.knee.occupancy import Occupancy
from setpoint.loop.knee.probes import Criterion, GapMaker, ProbeTrace
from setpoint.loop.knee.sizes import WorkSource
from setpoint.loop.knee.twin import Outcome, run_twin
from setpoint.statistics import BoolArray, FloatArray

CROWD_DECIMALS = 1
SETTLING_SHARE = 0.05
SHARE_FLOOR = 1e-6


@dataclass(frozen=True, slots=True)
class Habit:
    """A quantity that rises with the crowd a request met: its value at some crowds, linear between, flat beyond."""

    crowd: FloatArray
    value: FloatArray

    @property
    def varies(self) -> bool:
        """Whether it depends on the crowd at all."""
        return len(self.value) > 0 and bool(self.value[0] < self.value[-1])

    def at(self, crowd: FloatArray) -> FloatArray:
        """The quantity at each crowd; 0 where nothing was ever seen."""
        return np.interp(crowd, self.crowd, self.value) if len(self.crowd) else np.zeros(len(crowd))


def learn_habit(crowd: FloatArray, value: FloatArray, weight: FloatArray) -> Habit:
    """The non-decreasing function nearest to weighted values (isotonic regression by pooling neighbours that violate it)."""
    known = weight > 0
    crowd, value, weight = crowd[known], value[known], weight[known]
    if not len(value) or not value.any():
        return Habit(np.zeros(0), np.zeros(0))
    if value.min() == value.max():
        return Habit(crowd[:1], value[:1])
    places, bins = np.unique(np.round(crowd, CROWD_DECIMALS), return_inverse=True)
    mass = np.bincount(bins, weight)
    sums = np.bincount(bins, weight * value)
    # A block: sum of the values and mass, both weighted; its least and greatest crowd.
    blocks: list[tuple[float, float, float, float]] = []
    for total, held, at in zip(sums.tolist(), mass.tolist(), places.tolist(), strict=True):
        block = (total, held, at, at)
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2], block[3])
        blocks.append(block)
    ends = np.array([end for block in blocks for end in block[2:]])
    return Habit(ends, np.repeat([block[0] / block[1] for block in blocks], 2))


@dataclass(frozen=True, slots=True)
class Habits:
    """What the model of the server does not say, learned as it was seen.

    refusal: share refused, by how many are present on arrival. For each criterion: slow_start: share with a late first
    token among those that end in time, by the same; other: share that is bad for another reason among those that are not
    late, by the crowd met; samples: how many samples a request holds, by the crowd met.
    """

    refusal: Habit
    slow_start: tuple[Habit, ...]
    other: tuple[Habit, ...]
    samples: tuple[Habit, ...]


def learn_habits(
    traces: list[ProbeTrace], probes: list[Occupancy], weights: list[float], criteria: tuple[Criterion, ...]
) -> Habits:
    """From all probes so far, each with its weight."""
    pairs = list(zip(traces, probes, strict=True))
    present = np.concatenate([probe.before_arrival(trace.arrival_s) for trace, probe in pairs]).astype(np.float64)
    refused = np.concatenate([trace.refused for trace in traces])
    every = np.concatenate([np.full(len(trace.arrival_s), weight) for trace, weight in zip(traces, weights, strict=True)])
    crowd = np.concatenate([probe.crowd() for probe in probes])
    met, own = present[~refused], every[~refused]
    slow_start, other, samples = [], [], []
    for place, criterion in enumerate(criteria):

        def admitted(column: FloatArray | BoolArray) -> FloatArray:
            return np.asarray(column[~refused], dtype=np.float64)

        bad = admitted(np.concatenate([trace.bad[place] for trace in traces]))
        held = admitted(np.concatenate([trace.weight[place] for trace in traces]))
        late = admitted(np.concatenate([trace.end_s - trace.arrival_s > criterion.e2e_s for trace in traces]))
        slow = admitted(np.concatenate([trace.first_s - trace.arrival_s > criterion.ttft_s for trace in traces]))
        slow_start.append(learn_habit(met, slow, own * held * (1.0 - late)))
        other.append(learn_habit(crowd, bad, own * held * (1.0 - np.maximum(late, slow))))
        samples.append(learn_habit(crowd, held, own))
    return Habits(learn_habit(present, refused.astype(np.float64), every), tuple(slow_start), tuple(other), tuple(samples))


@dataclass(frozen=True)
class Twin:
    """A fitted server with the works and habits it was seen to have."""

    model: ServerModel
    source: WorkSource
    habits: Habits
    criteria: tuple[Criterion, ...]

    def shares(self, arrival_s: FloatArray, seed: int, skip: int = 0) -> FloatArray:
        """The bad share by each criterion on these arrivals from an empty start, the first ``skip`` left out."""
        rng = np.random.default_rng(seed)
        work = self.source.draw(len(arrival_s), rng)
        refuse_from = _refuse_from(self.habits.refusal, rng.random(len(arrival_s)))
        outcome = run_twin(self.model, arrival_s, work, refuse_from, with_crowd=self._asks_for_crowd)
        return np.array([self._share(outcome, place, skip) for place in range(len(self.criteria))])

    @property
    def _asks_for_crowd(self) -> bool:
        return any(habit.varies for habit in (*self.habits.other, *self.habits.samples))

    def _share(self, outcome: Outcome, place: int, skip: int) -> float:
        criterion, habits = self.criteria[place], self.habits
        late = outcome.e2e_s > criterion.e2e_s
        kept = (1.0 - habits.slow_start[place].at(outcome.met)) * (1.0 - habits.other[place].at(outcome.crowd))
        bad = np.where(late, 1.0, 1.0 - kept)
        weight = habits.samples[place].at(outcome.crowd)
        if criterion.counts_refused:
            bad, weight = np.where(outcome.refused, 1.0, bad), np.where(outcome.refused, 1.0, weight)
        else:
            weight = np.where(outcome.refused, 0.0, weight)
        mass = float(weight[skip:].sum())
        return float((bad * weight)[skip:].sum() / mass) if mass > 0 else 0.0

    def steady(self, rate_rps: float, gaps: FloatArray, seed: int) -> FloatArray:
        """The bad shares in the long run at ``rate_rps``: ``gaps`` of mean 1, the first few left out as not yet settled."""
        return self.shares(np.cumsum(gaps) / rate_rps, seed, int(SETTLING_SHARE * len(gaps)))


def steady_gaps(make: GapMaker, n: int, seed: int) -> FloatArray:
    """``n`` gaps whose mean is exactly 1, so that the rate of a finite run is the rate that is meant."""
    gaps = make(n, np.random.default_rng(seed))
    scaled: FloatArray = gaps / gaps.mean()
    return scaled


def _refuse_from(refusal: Habit, chances: FloatArray) -> FloatArray | None:
    """From how many present on each request is refused: where the refusal share passes the request's own chance."""
    if not len(refusal.crowd) or refusal.value[-1] <= 0.0:
        return None
    limits = np.interp(chances, refusal.value, refusal.crowd)
    return np.where(chances >= refusal.value[-1], np.inf, np.maximum(limits, 1.0))
