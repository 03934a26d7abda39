"""What a user asserts of a run beyond the limits of a requirement, judged on the interval like them.

The rules, by what is asserted:

- a percentile: by the share of samples beyond the limit, as the limits of a requirement are (``judge``);
- a mean (of what was served), a throughput, a goodput in requests per second: by the 95 % interval of the figure;
- a share of requests or of streams: by Wilson's interval for the effective number of requests;
- a largest value, a count, a share of exactly 0 or 1: about this run and no other, so by the figure itself.
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa

from setpoint.record import Phase, RequestClass, SloCheck, Verdict
from setpoint.report.assertion import Assertion
from setpoint.report.figures import PhaseSpan
from setpoint.report.judge import within_limit
from setpoint.report.request_samples import Requests, Sample, latency_sample, phase_rows, read_requests, stall_sample
from setpoint.requirement import LatencyMetric
from setpoint.statistics import (
    BoolArray,
    FloatArray,
    Interval,
    mean_interval,
    percentile,
    percentile_interval,
    ratio_interval,
    share_interval,
)

FADING = ("percentile", "mean", "spread")
"""Kinds of claims about latencies, which a growing backlog makes worse the longer it lasts."""
RATE_BINS = 60
LEAST_BINS = 8


def assertion_check(requests: pa.Table, span: PhaseSpan | None, assertion: Assertion, *, growing: bool = False) -> SloCheck:
    """Judge one claim on the table of all phases (``record.columns.REQUEST_COLUMNS``, completed rows already classified).

    ``span`` is the phase of the claim; without one (the phase was not run) the claim is inconclusive. growing: whether a
    backlog grew throughout the sustained phase: a latency or share of it that was kept so far is not shown to be kept.
    """
    check = _checked(requests, span, assertion, growing=growing)
    if assertion.kind == "fraction":
        fades = assertion.limit not in (0.0, 1.0)  # Those are about the run itself.
    else:
        fades = assertion.kind in FADING and assertion.sense == "at_most"
    if fades and growing and assertion.phase is Phase.SUSTAINED and check.verdict is Verdict.MET:
        return check.model_copy(update={"verdict": Verdict.INCONCLUSIVE})
    return check


def _checked(requests: pa.Table, span: PhaseSpan | None, assertion: Assertion, *, growing: bool) -> SloCheck:
    course = growing or assertion.phase is Phase.BURST
    rows = read_requests(phase_rows(requests, assertion.phase))
    if span is None or not len(rows):
        return _check(assertion, None, None, Verdict.INCONCLUSIVE)
    match assertion.kind:
        case "percentile":
            return _percentile_check(rows, assertion, course=course)
        case "mean":
            return _mean_check(rows, assertion)
        case "max":
            return _max_check(rows, assertion)
        case "spread":
            return _spread_check(rows, assertion, course=course)
        case "fraction" | "stalled":
            return _fraction_check(rows, assertion, course=course)
        case "count":
            count = float(rows.count(RequestClass(assertion.metric)))
            return _check(assertion, count, None, _by_value(count, assertion))
        case "rate":
            return _rate_check(rows, read_requests(requests), span, assertion)


def _percentile_check(rows: Requests, assertion: Assertion, *, course: bool) -> SloCheck:
    sample, share = _sample(rows, assertion.metric), assertion.percentile or 50.0
    value = percentile(sample.values, share, sample.censored)
    interval = percentile_interval(sample.values, share, censored=sample.censored, transient=course)
    if assertion.sense == "at_least":
        return _check(assertion, value, interval, _by_interval(interval, assertion))
    return _check(assertion, value, interval, within_limit(sample, share, assertion.limit, course=course))


def _mean_check(rows: Requests, assertion: Assertion) -> SloCheck:
    """Of what was served: a mean with anything infinite in it says nothing. Censored samples leave only a lower bound."""
    sample = _sample(rows, assertion.metric, failures_infinite=False)
    if not len(sample):
        return _check(assertion, None, None, Verdict.INCONCLUSIVE)
    mean = float(sample.values.mean())
    if sample.censored.any():
        surely_over = assertion.sense == "at_most" and mean > assertion.limit
        return _check(assertion, None, None, Verdict.MISSED if surely_over else Verdict.INCONCLUSIVE)
    interval = mean_interval(sample.values)
    return _check(assertion, mean, interval, _by_interval(interval, assertion))


def _max_check(rows: Requests, assertion: Assertion) -> SloCheck:
    sample = _sample(rows, assertion.metric)
    if not len(sample):
        return _check(assertion, None, None, Verdict.INCONCLUSIVE)
    largest = float(sample.values.max())
    verdict = _by_value(largest, assertion)
    if sample.censored.any() and largest <= assertion.limit:
        verdict = Verdict.INCONCLUSIVE if assertion.sense == "at_most" else verdict
    return _check(assertion, largest, None, verdict)


def _spread_check(rows: Requests, assertion: Assertion, *, course: bool) -> SloCheck:
    sample = _sample(rows, assertion.metric)
    p50, p99 = (percentile(sample.values, p, sample.censored) for p in (50.0, 99.0))
    known = p50 is not None and p99 is not None and p50 > 0 and math.isfinite(p99)
    value = p99 / p50 if known and p50 is not None and p99 is not None else None
    interval = ratio_interval(sample.values, censored=sample.censored, transient=course)
    return _check(assertion, value, interval, _by_interval(interval, assertion))


def _fraction_check(rows: Requests, assertion: Assertion, *, course: bool) -> SloCheck:
    hits = _hits(rows, assertion)
    if not len(hits):
        return _check(assertion, None, None, Verdict.INCONCLUSIVE)
    value = float(hits.mean())
    interval = share_interval(hits, transient=course)
    if assertion.limit in (0.0, 1.0):
        return _check(assertion, value, interval, _by_value(value, assertion))
    return _check(assertion, value, interval, _by_interval(interval, assertion))


def _hits(rows: Requests, assertion: Assertion) -> BoolArray:
    """Which requests (streams, for stalls) the share counts, in the order of the rows."""
    if assertion.kind == "stalled":
        largest = stall_sample(rows).values
        return np.asarray(largest > (assertion.gap_s or 0.0), dtype=np.bool_)
    name = "ok" if assertion.metric == "goodput" else assertion.metric
    return rows.is_class(RequestClass(name))


def _rate_check(rows: Requests, everything: Requests, span: PhaseSpan, assertion: Assertion) -> SloCheck:
    """A rate over the phase; its interval from the rates of equal parts of the phase, which allows for dependence."""
    if assertion.metric == "goodput_rps":
        ok = rows.is_class(RequestClass.OK)
        offered_rps = len(ok) / span.duration_s
        share = share_interval(ok)
        interval = None if share is None else (share[0] * offered_rps, share[1] * offered_rps)
        return _check(assertion, float(ok.mean()) * offered_rps, interval, _by_interval(interval, assertion))
    moments_s, weights = _events(everything, assertion.metric)
    inside = (moments_s >= span.start_s) & (moments_s < span.end_s)
    value = float(weights[inside].sum()) / span.duration_s
    bins = min(RATE_BINS, int(inside.sum()))
    interval = None
    if bins >= LEAST_BINS:
        edges_s = np.linspace(span.start_s, span.end_s, bins + 1)
        amounts, _ = np.histogram(moments_s[inside], bins=edges_s, weights=weights[inside])
        interval = mean_interval(amounts / (span.duration_s / bins))
    return _check(assertion, value, interval, _by_interval(interval, assertion))


def _events(requests: Requests, metric: str) -> tuple[FloatArray, FloatArray]:
    """When something counted towards ``metric``, and how much."""
    if metric == "requests_per_s":
        ended = requests.is_class(RequestClass.OK, RequestClass.LATE)
        return requests.end_s[ended], np.ones(int(ended.sum()))
    has_times = np.bincount(requests.token_owner, minlength=len(requests)) > 0
    served = requests.is_class(RequestClass.OK, RequestClass.LATE)
    if metric == "prompt_tokens_per_s":
        first = np.where(np.isnan(requests.first_s) & served, requests.end_s, requests.first_s)
        known = ~np.isnan(first)
        return first[known], np.nan_to_num(requests.prompt_tokens[known])
    whole = served & ~has_times
    moments_s = np.concatenate((requests.token_times_s, requests.end_s[whole]))
    return moments_s, np.concatenate((np.ones(len(requests.token_times_s)), np.nan_to_num(requests.output_tokens[whole])))


def _sample(rows: Requests, metric: str, *, failures_infinite: bool = True) -> Sample:
    if metric == "max_gap":
        return stall_sample(rows)
    return latency_sample(rows, LatencyMetric(metric), failures_infinite=failures_infinite)


def _by_value(value: float, assertion: Assertion) -> Verdict:
    holds = value >= assertion.limit if assertion.sense == "at_least" else value <= assertion.limit
    return Verdict.MET if holds else Verdict.MISSED


def _by_interval(interval: Interval | None, assertion: Assertion) -> Verdict:
    if interval is None:
        return Verdict.INCONCLUSIVE
    low, high = interval
    if assertion.sense == "at_least":
        low, high, limit = -high, -low, -assertion.limit
    else:
        limit = assertion.limit
    if high <= limit:
        return Verdict.MET
    return Verdict.MISSED if low > limit else Verdict.INCONCLUSIVE


def _check(assertion: Assertion, value: float | None, interval: Interval | None, verdict: Verdict) -> SloCheck:
    bounded = interval is not None and all(map(math.isfinite, interval))
    return SloCheck(
        metric=assertion.name,
        statistic=assertion.statistic,
        phase=assertion.phase,
        limit=assertion.limit,
        value=value if value is not None and math.isfinite(value) else None,
        interval=interval if bounded else None,
        verdict=verdict,
        sense=assertion.sense,
        asserted=assertion.text,
    )
