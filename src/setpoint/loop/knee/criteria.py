"""From a requirement to the criteria of the search, and from a measured table to what a probe showed by each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from setpoint.loop.knee.probes import Count, Criterion, ProbeResult, ProbeTrace
from setpoint.record import Phase, RequestClass
from setpoint.report.figures import not_late_yet
from setpoint.report.request_samples import NEVER_SERVED, SERVED, Requests, phase_rows, read_requests
from setpoint.requirement import LatencyMetric, LatencySlo, Requirement, SpreadSlo
from setpoint.statistics import BoolArray, FloatArray, effective_sample_size

if TYPE_CHECKING:
    import pyarrow as pa

LEAST_SHARE = 1e-3
"""A limit of exactly 0 or 1 cannot be shown of all requests ever; the search takes it for this share."""
FAILED_SHARE = 0.005


@dataclass(frozen=True, slots=True)
class Limit:
    """A criterion and which limit of the requirement it stands for (``None``: goodput, refusals or failures)."""

    criterion: Criterion
    slo: LatencySlo | SpreadSlo | None = None


def limits_of(requirement: Requirement) -> tuple[Limit, ...]:
    """One for each limit on the sustained phase; failures are one of their own where no limit would notice them."""
    slos = requirement.slo
    found = [Limit(_of_latency(slo), slo) for slo in slos.latency]
    found += [Limit(Criterion(f"{slo.metric} spread", 0.01, counts_refused=False), slo) for slo in slos.spread]
    if slos.goodput_fraction_min is not None:
        limits_s = [slos.limit_s(metric) for metric in (LatencyMetric.TTFT, LatencyMetric.E2E)]
        ttft_s, e2e_s = (np.inf if limit_s is None else limit_s for limit_s in limits_s)
        allowed = max(1.0 - slos.goodput_fraction_min, LEAST_SHARE)
        found.append(Limit(Criterion("goodput", allowed, ttft_s, e2e_s)))
    if slos.shed_fraction_max is not None:
        found.append(Limit(Criterion("shed", max(slos.shed_fraction_max, LEAST_SHARE))))
    sees_failures = slos.goodput_fraction_min is not None or any(
        limit.criterion.ttft_s < np.inf or limit.criterion.e2e_s < np.inf for limit in found
    )
    if found and not sees_failures:
        found.append(Limit(Criterion("failures", FAILED_SHARE, counts_refused=False)))
    return tuple(found)


def _of_latency(slo: LatencySlo) -> Criterion:
    return Criterion(
        f"{slo.metric} {slo.statistic}",
        1.0 - slo.percentile / 100.0,
        ttft_s=slo.limit_s if slo.metric == LatencyMetric.TTFT else np.inf,
        e2e_s=slo.limit_s if slo.metric == LatencyMetric.E2E else np.inf,
        counts_refused=False,
    )


def probe_result(
    table: pa.Table, limits: tuple[Limit, ...], *, rate_rps: float, met: str, sizes: FloatArray | None = None
) -> ProbeResult:
    """What the rows of one probe (``record.columns.REQUEST_COLUMNS``, classified) say.

    Counts are of the sustained phase; the trace has every request from the first one on, because the queue of the
    sustained phase began to build with them. sizes: planned sizes in the order of intended sends.
    """
    rows = read_requests(table.sort_by("intended_s"))
    judged = read_requests(phase_rows(table, Phase.SUSTAINED))
    bad, weight = _samples(judged, limits)
    counts = tuple(
        Count(
            float((bad[place] * weight[place]).sum()),
            float(weight[place].sum()),
            effective_sample_size((bad[place] > 0)[weight[place] > 0]),
        )
        for place in range(len(limits))
    )
    return ProbeResult(
        rate_rps=rate_rps,
        offered=len(judged),
        ok=judged.count(RequestClass.OK),
        met=met,
        counts=counts,
        trace=_trace(rows, limits, sizes),
    )


def _trace(rows: Requests, limits: tuple[Limit, ...], sizes: FloatArray | None) -> ProbeTrace:
    bad, weight = _samples(rows, limits)
    running = rows.is_class(RequestClass.UNFINISHED)
    instants = np.concatenate((rows.intended_s, rows.end_s, rows.cutoff_s))
    return ProbeTrace(
        arrival_s=rows.intended_s,
        first_s=np.where(np.isnan(rows.first_s) & rows.is_class(*SERVED), rows.end_s, rows.first_s),
        end_s=np.where(running, np.nan, rows.end_s),
        cutoff_s=float(np.nanmax(instants)),
        complete=rows.is_class(*SERVED),
        refused=rows.is_class(RequestClass.SHED, RequestClass.DROPPED),
        bad=bad,
        weight=weight,
        sizes=sizes if sizes is not None and len(sizes) == len(rows) else None,
    )


def _samples(rows: Requests, limits: tuple[Limit, ...]) -> tuple[FloatArray, FloatArray]:
    """How bad each request is by each limit and how many samples it holds, shapes ``[limits, n]``."""
    pairs = [_one(rows, limit) for limit in limits]
    bad = np.array([pair[0] for pair in pairs], dtype=np.float64).reshape(len(limits), len(rows))
    weight = np.array([pair[1] for pair in pairs], dtype=np.float64).reshape(len(limits), len(rows))
    return bad, weight


def _one(rows: Requests, limit: Limit) -> tuple[FloatArray | BoolArray, FloatArray | BoolArray]:
    lost = rows.is_class(*NEVER_SERVED)
    slo = limit.slo
    if slo is None:
        if limit.criterion.name == "shed":
            return rows.is_class(RequestClass.SHED), np.ones(len(rows))
        if limit.criterion.name == "failures":
            return lost, ~rows.is_class(RequestClass.SHED)
        return ~rows.is_class(RequestClass.OK), ~_may_yet_be_good(rows, limit.criterion)
    if slo.metric == LatencyMetric.ITL:
        return _gaps(rows, slo)
    values = _values(rows, slo.metric)
    running = rows.is_class(RequestClass.UNFINISHED) & np.isnan(values)
    known = ~np.isnan(values)
    if isinstance(slo, SpreadSlo):
        over = values > slo.limit * (float(np.median(values[known])) if known.any() else np.inf)
    else:
        over = values > slo.limit_s
    if slo.metric not in (LatencyMetric.TTFT, LatencyMetric.E2E):
        return over & known, known
    if isinstance(slo, LatencySlo):
        # One that was cut off before its limit has not shown that it would miss it.
        running = running & (rows.waited_s() > slo.limit_s)
    counted = known | lost | running
    if slo.metric == LatencyMetric.TTFT:
        counted = counted & rows.streaming
    return (over & known) | lost | running, counted


def _may_yet_be_good(rows: Requests, criterion: Criterion) -> BoolArray:
    """Requests that were cut off and had missed neither limit by then; none where there is neither: all would be left out."""
    if criterion.ttft_s == np.inf and criterion.e2e_s == np.inf:
        return np.zeros(len(rows), dtype=np.bool_)
    return not_late_yet(rows, criterion.ttft_s, criterion.e2e_s)


def _values(rows: Requests, metric: LatencyMetric) -> FloatArray:
    if metric == LatencyMetric.TTFT:
        return rows.ttft_s()
    if metric == LatencyMetric.E2E:
        return rows.e2e_s()
    return rows.tpot_s() if metric == LatencyMetric.TPOT else rows.queue_wait_s


def _gaps(rows: Requests, slo: LatencySlo | SpreadSlo) -> tuple[FloatArray, FloatArray]:
    """Each request's share of gaps over the limit, and its gaps."""
    gaps, owner, _ = rows.gaps()
    limit_s = slo.limit_s if isinstance(slo, LatencySlo) else slo.limit * (float(np.median(gaps)) if len(gaps) else np.inf)
    counts = np.bincount(owner, minlength=len(rows)).astype(np.float64)
    over = np.bincount(owner[gaps > limit_s], minlength=len(rows))
    return over / np.maximum(counts, 1.0), counts
