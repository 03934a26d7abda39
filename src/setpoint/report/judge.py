"""Whether a candidate meets the requirement: every SLO judged on its phase, with an interval."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from setpoint.record import Phase, RequestClass, SloCheck, SloReport, Verdict
from setpoint.report.choice import choose
from setpoint.report.figures import classify_run, may_yet_be_ok, request_slos, severity
from setpoint.report.request_samples import SERVED, Requests, Sample, latency_sample, phase_rows, read_requests
from setpoint.report.steady import steady_state
from setpoint.requirement import LatencyMetric, LatencySlo, Requirement, Slos, SpreadSlo
from setpoint.statistics import (
    BoolArray,
    Interval,
    finite,
    percentile,
    percentile_interval,
    ratio_interval,
    share_interval,
)

__all__ = [
    "JudgedPhase",
    "choose",
    "failure_check",
    "judge",
    "not_for_long",
    "nothing_served",
    "overall_verdict",
    "phase_checks",
    "sees_failures",
    "spread_within",
    "within_limit",
]

FAILED_FRACTION = "failed_fraction"
_SEES_FAILURES = (LatencyMetric.TTFT, LatencyMetric.E2E)


@dataclass(frozen=True, slots=True)
class JudgedPhase:
    """The rows of a phase and how they are to be taken.

    course: its latencies followed a course, as in a burst and under a growing backlog, instead of varying about a level.
    growing: the backlog grew, so nothing that was still met would have stayed so.
    """

    requests: Requests
    phase: Phase
    course: bool
    growing: bool = False


def judge(requests: pa.Table, requirement: Requirement) -> SloReport:
    """The verdict on one candidate from its request table (``record.columns.REQUEST_COLUMNS``, all phases).

    ``requirement.slo`` is judged on the sustained phase and ``slo_burst`` on the burst, one check a limit. A check is
    met when it is shown at 95 % that the limit is held, missed when it is shown that it is not, and otherwise, or with too
    few samples, inconclusive. A percentile is judged by the share of samples beyond the limit (``within_limit``).
    Completed requests are classified anew by the requirement.

    In TTFT and E2E checks failed and dropped requests are infinitely late. So are unfinished ones in the value and in
    the upper end of the interval; its lower end takes their wait so far, since a request cut off before its limit has
    not shown that it would have missed it. Shed requests are in no latency check: ``shed_fraction_max`` and
    ``goodput_fraction_min`` limit them.

    Where the backlog grew throughout the sustained phase (``steady_state``) no limit on latency or goodput is met: what
    held so far would not have held much longer; such a check is inconclusive.

    If no limit on the sustained phase would notice a failure (none on TTFT, E2E or goodput, or no limits at all), or nothing at
    all was served, there is a check of its own: something was served and nothing failed.
    """
    classified = classify_run(requests, requirement)
    growing = steady_state(requests).drifting
    sustained = JudgedPhase(read_requests(phase_rows(classified, Phase.SUSTAINED)), Phase.SUSTAINED, growing, growing)
    checks = list(phase_checks(sustained, requirement.slo, request_slos(requirement, Phase.SUSTAINED)))
    if not sees_failures(requirement.slo) or nothing_served(sustained.requests):
        checks.append(failure_check(sustained))
    burst = JudgedPhase(read_requests(phase_rows(classified, Phase.BURST)), Phase.BURST, course=True)
    checks += phase_checks(burst, requirement.slo_burst, request_slos(requirement, Phase.BURST))
    return SloReport(verdict=overall_verdict(checks), checks=checks)


def overall_verdict(checks: list[SloCheck]) -> Verdict:
    """Missed if any check is missed, else inconclusive if any is, else met."""
    verdicts = {check.verdict for check in checks}
    return next((verdict for verdict in (Verdict.MISSED, Verdict.INCONCLUSIVE) if verdict in verdicts), Verdict.MET)


def phase_checks(judged: JudgedPhase, slos: Slos, of_a_request: Slos) -> Iterator[SloCheck]:
    """One check for each limit of ``slos`` on a phase; ``of_a_request``: what a good request keeps."""
    for latency in slos.latency:
        yield not_for_long(judged, _latency_check(judged, latency))
    for spread in slos.spread:
        yield not_for_long(judged, _spread_check(judged, spread))
    if slos.goodput_fraction_min is not None:
        yield not_for_long(judged, _goodput_check(judged, slos.goodput_fraction_min, of_a_request))
    if slos.shed_fraction_max is not None:
        shed = judged.requests.is_class(RequestClass.SHED)
        yield _few_check("shed_fraction", shed, slos.shed_fraction_max, judged)


def not_for_long(judged: JudgedPhase, check: SloCheck) -> SloCheck:
    """A limit that was met under a growing backlog is not shown to be held."""
    if judged.growing and check.verdict is Verdict.MET:
        return check.model_copy(update={"verdict": Verdict.INCONCLUSIVE})
    return check


def _latency_check(judged: JudgedPhase, slo: LatencySlo) -> SloCheck:
    sample = latency_sample(judged.requests, slo.metric, failures_infinite=True)
    interval = percentile_interval(sample.values, slo.percentile, censored=sample.censored, transient=judged.course)
    return SloCheck(
        metric=str(slo.metric),
        statistic=slo.statistic,
        phase=judged.phase,
        limit=slo.limit_s,
        value=finite(percentile(sample.values, slo.percentile, sample.censored)),
        interval=_both_ends(interval),
        verdict=within_limit(sample, slo.percentile, slo.limit_s, course=judged.course),
    )


def within_limit(sample: Sample, percent: float, limit_s: float, *, course: bool = False) -> Verdict:
    """Whether the percentile is at most the limit: whether at most 1 - p of the samples lie beyond it.

    Asked at the limit, by the interval of that share with the dependence of its own indicator: dependence between samples far
    below the limit does not matter to it. A censored sample below the limit counts as beyond it for the upper end only.
    ``statistics.side_of_limit`` is the stricter rule that decision 0008 tells of. ``course``: the latencies follow a
    course that is what such a phase is like, as in a burst.
    """
    if not len(sample):
        return Verdict.INCONCLUSIVE
    surely = sample.values > limit_s
    low = share_interval(surely, transient=course)
    high = share_interval(surely | sample.censored, transient=course)
    allowed = 1.0 - percent / 100.0
    return _at_most((low[0] if low else 0.0, high[1] if high else 1.0), allowed)


def _at_most(interval: Interval, most: float) -> Verdict:
    """Whether what the interval holds is at most ``most``."""
    if interval[1] <= most:
        return Verdict.MET
    return Verdict.MISSED if interval[0] > most else Verdict.INCONCLUSIVE


def _spread_check(judged: JudgedPhase, slo: SpreadSlo) -> SloCheck:
    sample = latency_sample(judged.requests, slo.metric, failures_infinite=True)
    p50, p99 = (finite(percentile(sample.values, p, sample.censored)) for p in (50.0, 99.0))
    interval = ratio_interval(sample.values, censored=sample.censored, transient=judged.course)
    return SloCheck(
        metric="spread",
        statistic=str(slo.metric),
        phase=judged.phase,
        limit=slo.limit,
        value=p99 / p50 if p99 is not None and p50 else None,
        interval=_both_ends(interval),
        verdict=spread_within(sample, slo.limit, course=judged.course),
    )


def spread_within(sample: Sample, limit: float, *, course: bool = False) -> Verdict:
    """Whether P99 <= limit x P50: by the share of samples beyond the limit times either end of the median's interval.

    Both ends have to agree, so the median's own uncertainty is paid for.
    """
    median = percentile_interval(sample.values, 50.0, censored=sample.censored, transient=course)
    if median is not None and math.isinf(median[0]):
        return Verdict.MISSED  # Half of them never ended: so did the slowest, and there is no ratio.
    if median is None or not all(map(math.isfinite, median)) or median[0] <= 0:
        return Verdict.INCONCLUSIVE
    verdicts = {within_limit(sample, 99.0, limit * end, course=course) for end in median}
    return verdicts.pop() if len(verdicts) == 1 else Verdict.INCONCLUSIVE


def _goodput_check(judged: JudgedPhase, least: float, slos: Slos) -> SloCheck:
    """The share of ok requests of those offered. A limit of exactly 0 or 1 is about the run itself and judged by count, as
    in ``_few_check``. Unfinished requests that had missed no limit count as ok in the upper end only."""
    good = severity(judged.requests, slos) <= 1.0
    perhaps = good | may_yet_be_ok(judged.requests, slos)
    surely = at_best = share_interval(good, transient=judged.course)
    if (perhaps != good).any():
        at_best = share_interval(perhaps, transient=judged.course)
    interval = None if surely is None or at_best is None else (surely[0], at_best[1])
    if interval is None:
        verdict = Verdict.INCONCLUSIVE
    elif least in (0.0, 1.0):
        verdict = Verdict.MET if good.mean() >= least else Verdict.MISSED if perhaps.mean() < least else Verdict.INCONCLUSIVE
    else:
        verdict = _at_most((-interval[1], -interval[0]), -least)
    return SloCheck(
        metric="goodput_fraction",
        statistic="min",
        phase=judged.phase,
        limit=least,
        value=float(good.mean()) if len(good) else None,
        interval=interval,
        verdict=verdict,
    )


def _few_check(metric: str, hits: BoolArray, most: float, judged: JudgedPhase) -> SloCheck:
    """That at most a share of the offered requests is among ``hits``. A limit of exactly 0 or 1 is about the run itself
    and judged by count, because no sample could prove it of all requests ever."""
    interval = share_interval(hits, transient=judged.course)
    if interval is None:
        verdict = Verdict.INCONCLUSIVE
    elif most in (0.0, 1.0):
        verdict = Verdict.MET if hits.mean() <= most else Verdict.MISSED
    else:
        verdict = _at_most(interval, most)
    return SloCheck(
        metric=metric,
        statistic="max",
        phase=judged.phase,
        limit=most,
        value=float(hits.mean()) if len(hits) else None,
        interval=interval,
        verdict=verdict,
    )


def nothing_served(requests: Requests) -> bool:
    """Whether every request of the phase ended without an answer."""
    return len(requests) > 0 and not requests.count(*SERVED, RequestClass.UNFINISHED)


def failure_check(judged: JudgedPhase) -> SloCheck:
    """Nothing failed, and something was served."""
    requests = judged.requests
    check = _few_check(FAILED_FRACTION, requests.is_class(RequestClass.FAILED), 0.0, judged)
    if requests.count(*SERVED):
        return check
    # Nothing can be said of a share of nothing: no value, so that it counts as far from its limit.
    nothing = {"value": None, "interval": None} if nothing_served(requests) else {}
    return check.model_copy(update={"verdict": Verdict.MISSED if len(requests) else Verdict.INCONCLUSIVE, **nothing})


def sees_failures(slos: Slos) -> bool:
    """Whether a limit of ``slos`` would notice a failed request."""
    metrics = [slo.metric for slo in slos.latency] + [slo.metric for slo in slos.spread]
    return slos.goodput_fraction_min is not None or any(metric in _SEES_FAILURES for metric in metrics)


def _both_ends(interval: Interval | None) -> Interval | None:
    """The interval as the record can hold it: an end that is not bounded cannot be written down."""
    return interval if interval is not None and all(map(math.isfinite, interval)) else None
