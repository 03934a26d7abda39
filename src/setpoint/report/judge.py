"""Whether a candidate meets the requirement: every SLO judged on its phase, with an interval."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pyarrow as pa

from setpoint.record import Phase, RequestClass, SloCheck, SloReport, Verdict
from setpoint.report.choice import choose
from setpoint.report.figures import classify_run
from setpoint.report.request_samples import SERVED, Requests, Sample, latency_sample, phase_rows, read_requests
from setpoint.requirement import LatencyMetric, LatencySlo, Requirement, Slos, SpreadSlo
from setpoint.statistics import (
    BoolArray,
    Interval,
    effective_sample_size,
    percentile,
    percentile_interval,
    proportion_interval,
    ratio_interval,
)

__all__ = ["choose", "judge", "overall_verdict"]

BOOTSTRAP_SEED = 20
FAILED_FRACTION = "failed_fraction"
_SEES_FAILURES = (LatencyMetric.TTFT, LatencyMetric.E2E)


def judge(requests: pa.Table, requirement: Requirement) -> SloReport:
    """The verdict on one candidate from its request table (``record.REQUEST_COLUMNS``, all phases).

    ``requirement.slo`` is judged on the sustained phase and ``slo_burst`` on the burst, one check a limit. A check is
    met when its whole 95 % interval is on the right side of the limit, missed when it is wholly on the wrong side, and
    otherwise, or with too few samples, inconclusive; for a percentile the interval is that of the share of samples
    beyond the limit. Completed requests are classified anew by the requirement.

    In TTFT and E2E checks failed and dropped requests are infinitely late. So are unfinished ones in the value and in
    the upper end of the interval; its lower end takes their wait so far, since a request cut off before its limit has
    not shown that it would have missed it. Shed requests are in no latency check: ``shed_fraction_max`` and
    ``goodput_fraction_min`` limit them.

    If no limit on the sustained phase would notice a failure (none on TTFT, E2E or goodput, or no limits at all), there
    is a check of its own: something was served and nothing failed.
    """
    classified = classify_run(requests, requirement)
    checks = list(_phase_checks(read_requests(phase_rows(classified, Phase.SUSTAINED)), requirement.slo))
    if not _sees_failures(requirement.slo):
        checks.append(_failure_check(read_requests(phase_rows(classified, Phase.SUSTAINED))))
    burst = read_requests(phase_rows(classified, Phase.BURST))
    checks += _phase_checks(burst, requirement.slo_burst, Phase.BURST)
    return SloReport(verdict=overall_verdict(checks), checks=checks)


def overall_verdict(checks: list[SloCheck]) -> Verdict:
    """Missed if any check is missed, else inconclusive if any is, else met."""
    verdicts = {check.verdict for check in checks}
    return next((verdict for verdict in (Verdict.MISSED, Verdict.INCONCLUSIVE) if verdict in verdicts), Verdict.MET)


def _phase_checks(requests: Requests, slos: Slos, phase: Phase = Phase.SUSTAINED) -> Iterator[SloCheck]:
    for latency in slos.latency:
        yield _latency_check(requests, latency, phase)
    for spread in slos.spread:
        yield _spread_check(requests, spread, phase)
    if slos.goodput_fraction_min is not None:
        ok = requests.is_class(RequestClass.OK)
        yield _fraction_check("goodput_fraction", "min", ok, slos.goodput_fraction_min, phase)
    if slos.shed_fraction_max is not None:
        shed = requests.is_class(RequestClass.SHED)
        yield _fraction_check("shed_fraction", "max", shed, slos.shed_fraction_max, phase)


def _latency_check(requests: Requests, slo: LatencySlo, phase: Phase) -> SloCheck:
    sample = latency_sample(requests, slo.metric, failures_infinite=True)
    interval = percentile_interval(sample.values, slo.percentile, censored=sample.censored)
    return SloCheck(
        metric=str(slo.metric),
        statistic=slo.statistic,
        phase=phase,
        limit=slo.limit_s,
        value=_finite(percentile(sample.values, slo.percentile, sample.censored)),
        interval=_both_ends(interval),
        verdict=_share_beyond(sample, slo),
    )


def _share_beyond(sample: Sample, slo: LatencySlo) -> Verdict:
    """Whether at most 1 - p of the samples lie beyond the limit, by the interval of that share.

    It is the same question as whether the percentile is within the limit, asked where the answer is wanted: dependence
    between samples far below the limit does not matter to it, dependence between those beyond it does. A censored
    sample below the limit counts as beyond it for the upper end only. 73 samples, none beyond, settle a P95; 381 a P99.
    """
    if not len(sample):
        return Verdict.INCONCLUSIVE
    allowed = 1.0 - slo.percentile / 100.0
    surely = sample.values > slo.limit_s
    perhaps = surely | sample.censored
    low, high = (
        (proportion_interval(int(hits.sum()), len(hits), effective_n=effective_sample_size(hits)) or (0.0, 1.0))
        for hits in (surely, perhaps)
    )
    if high[1] <= allowed:
        return Verdict.MET
    return Verdict.MISSED if low[0] > allowed else Verdict.INCONCLUSIVE


def _spread_check(requests: Requests, slo: SpreadSlo, phase: Phase) -> SloCheck:
    sample = latency_sample(requests, slo.metric, failures_infinite=True)
    p50, p99 = (_finite(percentile(sample.values, p, sample.censored)) for p in (50.0, 99.0))
    interval = ratio_interval(sample.values, BOOTSTRAP_SEED, censored=sample.censored)
    return SloCheck(
        metric="spread",
        statistic=str(slo.metric),
        phase=phase,
        limit=slo.limit,
        value=p99 / p50 if p99 is not None and p50 else None,
        interval=_both_ends(interval),
        verdict=_spread_by_share(sample, slo) if _both_ends(interval) is None else _at_most(interval, slo.limit),
    )


def _spread_by_share(sample: Sample, slo: SpreadSlo) -> Verdict:
    """P99 <= limit x P50 without an interval of P99: by the share of samples beyond the limit times either end of P50's.

    Both ends of the median's interval have to agree, so the median's own uncertainty is paid for.
    """
    median = percentile_interval(sample.values, 50.0, censored=sample.censored)
    if median is None or not all(map(math.isfinite, median)) or median[0] <= 0:
        return Verdict.INCONCLUSIVE
    verdicts = {
        _share_beyond(sample, LatencySlo(metric=slo.metric, percentile=99.0, limit_s=slo.limit * end)) for end in median
    }
    return verdicts.pop() if len(verdicts) == 1 else Verdict.INCONCLUSIVE


def _fraction_check(metric: str, statistic: str, hits: BoolArray, limit: float, phase: Phase) -> SloCheck:
    """A fraction of offered requests. A limit of exactly 0 or 1 is about the run itself and judged by count, because no
    sample could prove it of all requests ever."""
    count, offered = int(hits.sum()), len(hits)
    interval = proportion_interval(count, offered, effective_n=effective_sample_size(hits)) if offered else None
    if interval is None:
        verdict = Verdict.INCONCLUSIVE
    elif limit in (0.0, 1.0):
        verdict = Verdict.MET if count == limit * offered else Verdict.MISSED
    elif statistic == "min":
        verdict = _at_most((-interval[1], -interval[0]), -limit)
    else:
        verdict = _at_most(interval, limit)
    return SloCheck(
        metric=metric,
        statistic=statistic,
        phase=phase,
        limit=limit,
        value=count / offered if offered else None,
        interval=interval,
        verdict=verdict,
    )


def _failure_check(requests: Requests) -> SloCheck:
    """Nothing failed, and something was served."""
    failed = requests.is_class(RequestClass.FAILED)
    check = _fraction_check(FAILED_FRACTION, "max", failed, 0.0, Phase.SUSTAINED)
    if requests.count(*SERVED):
        return check
    return check.model_copy(update={"verdict": Verdict.MISSED if len(requests) else Verdict.INCONCLUSIVE})


def _sees_failures(slos: Slos) -> bool:
    metrics = [slo.metric for slo in slos.latency] + [slo.metric for slo in slos.spread]
    return slos.goodput_fraction_min is not None or any(metric in _SEES_FAILURES for metric in metrics)


def _at_most(interval: Interval | None, limit: float) -> Verdict:
    if interval is None:
        return Verdict.INCONCLUSIVE
    low, high = interval
    if high <= limit:
        return Verdict.MET
    return Verdict.MISSED if low > limit else Verdict.INCONCLUSIVE


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _both_ends(interval: Interval | None) -> Interval | None:
    """The interval as the record can hold it: an end that is not bounded cannot be written down."""
    return interval if interval is not None and all(map(math.isfinite, interval)) else None
