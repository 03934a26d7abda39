"""What simulated requests came to, as columns; and how far each limit is from being met if time were stretched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from setpoint.plan.curve import LEAST_EXCESS, MOST_EXCESS, STRETCHES, Floats
from setpoint.plan.limits import BACKLOG, Limit
from setpoint.record import Phase
from setpoint.requirement import LatencyMetric, Slos


@dataclass(frozen=True, slots=True)
class PhaseSamples:
    """One phase of a simulated run: columns of its offered requests that were not shed, shape [n], in order of arrival.

    NaN where a request has no such figure, infinite where it never ended. gaps: values [m] and how often each came, [m].
    gap_severity: by how much the gaps of each request miss the limits on ITL, 0 without any (``report.figures.severity``).
    offered: all of them, shed included. backlog: ``keeping_up.backlog_fraction``. front_s: of TTFT and E2E, what is outside the
    engine's steps, and lasts as long whatever these take.
    """

    phase: Phase
    offered: int
    shed: int
    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats
    queue_wait_s: Floats
    gap_severity: Floats
    gap_values_s: Floats
    gap_counts: Floats
    backlog: float = 0.0
    front_s: float = 0.0

    def column(self, metric: str) -> Floats:
        """The values of a latency that has one a request."""
        return {
            "ttft": self.ttft_s,
            "tpot": self.tpot_s,
            "e2e": self.e2e_s,
            "queue_wait": self.queue_wait_s,
        }[metric]

    def percentile_s(self, metric: str, percent: float) -> float:
        """Nearest rank over the requests, or over all gaps for ``itl``; NaN without any."""
        if metric == "itl":
            return _weighted_percentile(self.gap_values_s, self.gap_counts, percent)
        values = self.column(metric)
        values = np.sort(values[~np.isnan(values)])
        if not len(values):
            return float("nan")
        return float(values[max(0, int(np.ceil(len(values) * percent / 100.0 - 1e-9)) - 1)])

    def stretched(self, metric: str, values_s: Floats, stretch: Floats | float) -> Floats:
        """Values of a latency if every step took ``stretch`` times as long."""
        front_s = self.front_s if metric in ("ttft", "e2e") else 0.0
        return np.asarray(front_s + np.maximum(values_s - front_s, 0.0) * stretch, dtype=np.float64)

    def severity(self, slos: Slos, stretch: float = 1.0) -> Floats:
        """By how much each request missed its limits under ``stretch``, as in ``report.figures.severity``."""
        worst = np.zeros(len(self.e2e_s))
        worst[np.isinf(self.e2e_s)] = np.inf
        for metric in (LatencyMetric.TTFT, LatencyMetric.TPOT, LatencyMetric.E2E):
            limit_s = slos.limit_s(metric)
            if limit_s is not None:
                worst = np.fmax(worst, self.stretched(str(metric), self.column(str(metric)), stretch) / limit_s)
        if slos.limit_s(LatencyMetric.ITL) is not None:
            worst = np.fmax(worst, self.gap_severity * stretch)
        return worst


def excess_table(phases: Sequence[PhaseSamples], limits: Sequence[Limit], slos: dict[Phase, Slos]) -> Floats:
    """Excess of every limit under every stretch, shape [limits, len(STRETCHES)] (``curve``).

    slos: what one request of each phase is held to. A phase without a request has met nothing.
    """
    by_phase = {samples.phase: samples for samples in phases}
    table = np.full((len(limits), len(STRETCHES)), MOST_EXCESS)
    for row, limit in enumerate(limits):
        samples = by_phase.get(limit.phase)
        if samples is None or not samples.offered:
            continue
        table[row] = _excess(samples, limit, slos[limit.phase])
    clipped: Floats = np.clip(table, LEAST_EXCESS, MOST_EXCESS)
    return clipped


def _excess(samples: PhaseSamples, limit: Limit, slos: Slos) -> Floats:
    if limit.percent is not None:
        value_s = samples.percentile_s(limit.metric, limit.percent)
        if np.isnan(value_s):
            # Nobody had such a figure: all were refused, or no answer has two tokens.
            value_s = 0.0 if samples.shed < samples.offered else np.inf
        return samples.stretched(limit.metric, np.full(len(STRETCHES), min(value_s, MOST_EXCESS)), STRETCHES) / limit.limit
    if limit.metric == "spread":
        p50_s, p99_s = (samples.percentile_s(limit.statistic, percent) for percent in (50.0, 99.0))
        if not (p50_s > 0 and np.isfinite(p99_s)):
            return np.full(len(STRETCHES), MOST_EXCESS)
        low, high = (samples.stretched(limit.statistic, np.full(len(STRETCHES), each), STRETCHES) for each in (p50_s, p99_s))
        return np.asarray(high / low / limit.limit, dtype=np.float64)
    if limit.metric in ("shed_fraction", BACKLOG):
        share = samples.backlog if limit.metric == BACKLOG else samples.shed / samples.offered
        return np.full(len(STRETCHES), share / limit.limit if limit.limit else MOST_EXCESS * float(share > 0))
    met = [np.count_nonzero(samples.severity(slos, stretch) <= 1.0) for stretch in STRETCHES.tolist()]
    good = np.array(met) / samples.offered
    if limit.limit >= 1.0:
        return np.where(good >= 1.0, LEAST_EXCESS, MOST_EXCESS)
    return np.asarray((1.0 - good) / (1.0 - limit.limit), dtype=np.float64)


def _weighted_percentile(values: Floats, counts: Floats, percent: float) -> float:
    if not len(values) or counts.sum() <= 0:
        return float("nan")
    order = np.argsort(values)
    reached = np.cumsum(counts[order])
    place = int(np.searchsorted(reached, reached[-1] * percent / 100.0 - 1e-9))
    return float(values[order][min(place, len(values) - 1)])
