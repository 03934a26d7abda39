"""Looking during a run whether the percentile of a goal is known well enough (``--until``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from setpoint.loop.goal import Goal
from setpoint.measure.outcome import RequestOutcome
from setpoint.record import Phase, RequestClass
from setpoint.requirement import LatencyMetric
from setpoint.statistics import StoppingRule
from setpoint.workload.plan import LoadPlan

LOST = (RequestClass.FAILED, RequestClass.DROPPED)
LEAST_S = 10.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GoalWatch:
    """Asks ``rule`` at its looks. ``start_s``: where the sustained phase begins on the plan's axis."""

    plan: LoadPlan
    metric: LatencyMetric
    rule: StoppingRule
    start_s: float

    @property
    def looks_s(self) -> Sequence[float]:
        """When to look; the end of the plan is no look."""
        return [self.start_s + look_s for look_s in self.rule.looks_s[:-1]]

    def __call__(self, rows: Sequence[RequestOutcome], now_s: float) -> bool:
        """Whether the percentile is known, with what has not ended yet as censored."""
        values, censored = self._sample([row for row in rows if row.phase is Phase.SUSTAINED], now_s)
        return bool(len(values)) and self.rule.settled(values, censored)

    def _sample(self, rows: Sequence[RequestOutcome], now_s: float) -> tuple[Floats, NDArray[np.bool_]]:
        if self.metric is LatencyMetric.ITL:
            gaps = [np.diff(row.token_times_s) for row in rows]
            values = np.concatenate(gaps) if gaps else np.empty(0)
            return values, np.zeros(len(values), dtype=np.bool_)
        found = [(row.intended_s, self._value(row), False) for row in rows if row.request_class is not RequestClass.SHED]
        if self.plan.concurrency is None and self.metric is not LatencyMetric.TPOT:
            found += [(intended_s, now_s - intended_s, True) for intended_s in self._under_way(rows, now_s)]
        found = sorted(entry for entry in found if entry[1] is not None)
        values = np.array([value for _, value, _ in found], dtype=np.float64)
        return values, np.array([mark for _, _, mark in found], dtype=np.bool_)

    def _value(self, row: RequestOutcome) -> float | None:
        if row.request_class in LOST and self.metric is not LatencyMetric.TPOT:
            return np.inf
        return {LatencyMetric.TTFT: row.ttft_s, LatencyMetric.E2E: row.e2e_s}.get(self.metric, row.tpot_s)

    def _under_way(self, rows: Sequence[RequestOutcome], now_s: float) -> list[float]:
        """When the requests were intended that came due and have not ended."""
        ended = {row.index for row in rows}
        return [
            request.intended_s
            for request in self.plan.requests
            if request.phase is Phase.SUSTAINED and request.intended_s < now_s and request.index not in ended
        ]


def watch(goal: Goal, plan: LoadPlan, *, streaming: bool) -> GoalWatch:
    """What looks for ``goal`` while ``plan`` runs, whose sustained phase is the longest that it may take."""
    span = next(span for span in plan.phases if span.phase is Phase.SUSTAINED)
    metric = goal.metric or (LatencyMetric.TTFT if streaming else LatencyMetric.E2E)
    least_s = min(LEAST_S, span.duration_s)
    rule = StoppingRule(goal.percentile, goal.relative_width, least_s=least_s, most_s=span.duration_s)
    return GoalWatch(plan, metric, rule, span.start_s)
