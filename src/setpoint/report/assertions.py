"""What a user asserts of a run beyond the limits of a requirement, judged on the interval like them.

The rules, by what is asserted:

- a percentile: by the share of samples beyond the limit, as the limits of a requirement are (``judge``);
- a mean (of what was served), a throughput, a goodput in requests per second: by the 95 % interval of the figure;
- a share of requests or of streams: by Wilson's interval for the effective number of requests, where those that had not ended
  and may yet count enter the upper end only;
- a largest value, a count, a share of exactly 0 or 1: about this run and no other, so by the figure itself, unless what had not
  ended could turn it.
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa

from setpoint.record import Phase, RequestClass, SloCheck, Verdict
from setpoint.report.assertion import Assertion
from setpoint.report.figures import PhaseSpan, may_yet_be_ok
from setpoint.report.judge import spread_within, within_limit
from setpoint.report.request_samples import Requests, Sample, latency_sample, phase_rows, read_requests, stall_sample
from setpoint.report.throughput import output_tokens_between, prompts_begun_s
from setpoint.requirement import LatencyMetric, Slos
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


def assertion_check(
    requests: pa.Table, span: PhaseSpan | None, assertion: Assertion, *, growing: bool = False, slos: Slos | None = None
) -> SloCheck:
    """Judge one claim on the table of all phases (``record.columns.REQUEST_COLUMNS``, completed rows already classified).

    ``span`` is the phase of the claim; without one (the phase was not run) the claim is inconclusive. growing: whether a
    backlog grew throughout the sustained phase: a latency or share of it that was kept so far is not shown to be kept. slos:
    what one request of the phase was held to, by which one that had not ended may have missed a limit already.
    """
    check = _checked(requests, span, assertion, slos or Slos(), growing=growing)
    if assertion.kind == "fraction":
        fades = assertion.limit not in (0.0, 1.0)  # Those are about the run itself.
    else:
        fades = assertion.kind in FADING and assertion.sense == "at_most"
    if fades and growing and assertion.phase is Phase.SUSTAINED and check.verdict is Verdict.MET:
        return check.model_copy(update={"verdict": Verdict.INCONCLUSIVE})
    return check


def _checked(requests: pa.Table, span: PhaseSpan | None, assertion: Assertion, slos: Slos, *, growing: bool) -> SloCheck:
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
            return _fraction_check(rows, assertion, slos, course=course)
        case "count":
            hits = _hits(rows, assertion)
            counts = [float(each.sum()) for each in (hits, hits | _perhaps(rows, assertion, slos))]
            return _check(assertion, counts[0], None, _by_values(counts, assertion))
        case "rate":
            return _rate_check(rows, read_requests(requests), span, assertion, slos)


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
    if (
        interval is None
        and assertion.sense == "at_most"
        and spread_within(sample, assertion.limit, course=course) is Verdict.MISSED
    ):
        return _check(assertion, value, None, Verdict.MISSED)  # Half of them never ended.
    return _check(assertion, value, interval, _by_interval(interval, assertion))


def _fraction_check(rows: Requests, assertion: Assertion, slos: Slos, *, course: bool) -> SloCheck:
    hits = _hits(rows, assertion)
    if not len(hits):
        return _check(assertion, None, None, Verdict.INCONCLUSIVE)
    value, most = float(hits.mean()), hits
    if assertion.kind == "fraction":
        most = hits | _perhaps(rows, assertion, slos)
    surely, at_best = share_interval(hits, transient=course), share_interval(most, transient=course)
    interval = None if surely is None or at_best is None else (surely[0], at_best[1])
    if assertion.limit in (0.0, 1.0):
        return _check(assertion, value, interval, _by_values([value, float(most.mean())], assertion))
    return _check(assertion, value, interval, _by_interval(interval, assertion))


def _perhaps(rows: Requests, assertion: Assertion, slos: Slos) -> BoolArray:
    """Requests that had not ended and may yet be what the share counts."""
    if assertion.metric in ("goodput", "ok"):
        return may_yet_be_ok(rows, slos)
    if assertion.metric in ("late", "failed"):
        return rows.is_class(RequestClass.UNFINISHED)
    return np.zeros(len(rows), dtype=np.bool_)


def _hits(rows: Requests, assertion: Assertion) -> BoolArray:
    """Which requests (streams, for stalls) the share counts, in the order of the rows."""
    if assertion.kind == "stalled":
        largest = stall_sample(rows).values
        return np.asarray(largest > (assertion.gap_s or 0.0), dtype=np.bool_)
    name = "ok" if assertion.metric == "goodput" else assertion.metric
    return rows.is_class(RequestClass(name))


def _rate_check(rows: Requests, everything: Requests, span: PhaseSpan, assertion: Assertion, slos: Slos) -> SloCheck:
    """A rate over the phase; its interval from the rates of equal parts of the phase, which allows for dependence."""
    if assertion.metric == "goodput_rps":
        ok = rows.is_class(RequestClass.OK)
        offered_rps = len(ok) / span.duration_s
        share, at_best = share_interval(ok), share_interval(ok | may_yet_be_ok(rows, slos))
        interval = None if share is None or at_best is None else (share[0] * offered_rps, at_best[1] * offered_rps)
        return _check(assertion, float(ok.mean()) * offered_rps, interval, _by_interval(interval, assertion))
    ends_s = np.array([span.start_s, span.end_s])
    value = float(_amounts(everything, assertion.metric, ends_s)[0]) / span.duration_s
    bins = min(RATE_BINS, _counted(everything, assertion.metric, span))
    interval = None
    if bins >= LEAST_BINS:
        edges_s = np.linspace(span.start_s, span.end_s, bins + 1)
        interval = mean_interval(_amounts(everything, assertion.metric, edges_s) / (span.duration_s / bins))
    return _check(assertion, value, interval, _by_interval(interval, assertion))


def _amounts(requests: Requests, metric: str, edges_s: FloatArray) -> FloatArray:
    """How much counted towards ``metric`` in each stretch between ``edges_s``."""
    if metric == "output_tokens_per_s":
        return output_tokens_between(requests, edges_s)
    moments_s, weights = _events(requests, metric)
    inside = moments_s < edges_s[-1]
    amounts, _ = np.histogram(moments_s[inside], bins=edges_s, weights=weights[inside])
    return np.asarray(amounts, dtype=np.float64)


def _counted(requests: Requests, metric: str, span: PhaseSpan) -> int:
    """How many things the rate is of, within the span: tokens that have a time and whole answers, or requests."""
    if metric == "output_tokens_per_s":
        has_times = np.bincount(requests.token_owner, minlength=len(requests)) > 0
        ended = requests.is_class(RequestClass.OK, RequestClass.LATE) & ~has_times
        moments_s = np.concatenate((requests.token_times_s, requests.end_s[ended]))
    else:
        moments_s, _ = _events(requests, metric)
    return int(((moments_s >= span.start_s) & (moments_s < span.end_s)).sum())


def _events(requests: Requests, metric: str) -> tuple[FloatArray, FloatArray]:
    """When something counted towards ``metric`` (requests or prompt tokens), and how much."""
    if metric == "requests_per_s":
        ended = requests.is_class(RequestClass.OK, RequestClass.LATE)
        return requests.end_s[ended], np.ones(int(ended.sum()))
    first_s = prompts_begun_s(requests)
    known = ~np.isnan(first_s)
    return first_s[known], np.nan_to_num(requests.prompt_tokens[known])


def _sample(rows: Requests, metric: str, *, failures_infinite: bool = True) -> Sample:
    if metric == "max_gap":
        return stall_sample(rows)
    return latency_sample(rows, LatencyMetric(metric), failures_infinite=failures_infinite)


def _by_value(value: float, assertion: Assertion) -> Verdict:
    holds = value >= assertion.limit if assertion.sense == "at_least" else value <= assertion.limit
    return Verdict.MET if holds else Verdict.MISSED


def _by_values(values: list[float], assertion: Assertion) -> Verdict:
    """Where the figure may be any of ``values``: the verdict if it is the same for all."""
    verdicts = {_by_value(value, assertion) for value in values}
    return verdicts.pop() if len(verdicts) == 1 else Verdict.INCONCLUSIVE


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
