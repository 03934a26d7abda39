"""The figures of a phase from its request table: classes, latencies, goodput, throughput, cost."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from setpoint.record import Phase, PhaseMeasures, RequestClass, Summary
from setpoint.report.request_samples import (
    SERVED,
    Requests,
    Sample,
    latency_sample,
    phase_rows,
    read_requests,
    stall_sample,
)
from setpoint.report.span import PhaseSpan
from setpoint.report.steady import steady_state
from setpoint.report.throughput import output_tokens_between, prompts_begun_s
from setpoint.requirement import LatencyMetric, Price, Requirement, Slos
from setpoint.statistics import BoolArray, FloatArray, summarise

__all__ = ["PhaseSpan", "classify", "classify_requests", "classify_run", "phase_measures", "request_slos", "severity"]


def request_slos(requirement: Requirement, phase: Phase) -> Slos:
    """The limits that one request of ``phase`` is held to.

    In the burst these are ``slo_burst`` if it limits any latency, and otherwise the sustained ones: a burst
    requirement such as "90 % goodput" says how many may be late, not what late means.
    """
    return requirement.slo_burst if phase == Phase.BURST and requirement.slo_burst.latency else requirement.slo


def severity(requests: Requests, slos: Slos) -> FloatArray:
    """By how much each request missed its limits: its worst latency over the limit of that latency, shape ``[rows]``.

    At most 1 for a request that is ok, above 1 for one that is late, infinite for one that was not completed. TTFT, TPOT and
    E2E are held to the tightest limit declared at any percentile. For an ITL limit at percentile p it is the largest of its
    own gaps that may not be over the limit, at most 1 - p of them being allowed to. An answer that is not streamed has an
    E2E only. Queue wait is judged on the run, not on a request. Without limits every completed request has 0.
    """
    worst = np.zeros(len(requests), dtype=np.float64)
    for metric, values in (
        (LatencyMetric.TTFT, requests.ttft_s()),
        (LatencyMetric.TPOT, requests.tpot_s()),
        (LatencyMetric.E2E, requests.e2e_s()),
    ):
        limit_s = slos.limit_s(metric)
        if limit_s is not None:
            worst = np.fmax(worst, values / limit_s)
    for slo in slos.latency:
        if slo.metric == LatencyMetric.ITL:
            worst = np.fmax(worst, requests.deciding_gap_s(slo) / slo.limit_s)
    return np.where(requests.is_class(*SERVED), worst, np.inf)


def may_yet_be_ok(requests: Requests, slos: Slos) -> BoolArray:
    """Which unfinished requests had missed no limit on first token or end when they were last watched, shape ``[rows]``."""
    first_s, end_s = (slos.limit_s(metric) for metric in (LatencyMetric.TTFT, LatencyMetric.E2E))
    return not_late_yet(requests, np.inf if first_s is None else first_s, np.inf if end_s is None else end_s)


def not_late_yet(requests: Requests, first_s: float, end_s: float) -> BoolArray:
    """The same for these limits on first token and end, infinite where there is none."""
    waited_s, ttft_s = requests.waited_s(), requests.ttft_s()
    late = (np.where(np.isnan(ttft_s), waited_s, ttft_s) > first_s) | (waited_s > end_s)
    return requests.is_class(RequestClass.UNFINISHED) & ~late


def classify(requests: Requests, slos: Slos) -> BoolArray:
    """Which requests, if they were completed, are ok (DESIGN.md section 3; ``severity``); the others are late."""
    completed = replace(requests, classes=np.full(len(requests), str(RequestClass.OK)))
    return np.asarray(severity(completed, slos) <= 1.0, dtype=np.bool_)


def classify_requests(table: pa.Table, slos: Slos) -> pa.Table:
    """The table with completed rows (ok or late before) classified as ok or late; other rows and the order stay."""
    requests = read_requests(table)
    good = classify(requests, slos)
    served = requests.is_class(*SERVED)
    ended = np.where(good, str(RequestClass.OK), str(RequestClass.LATE))
    classes = pa.array([str(name) for name in np.where(served, ended, requests.classes)], pa.string())
    return table.set_column(table.schema.get_field_index("request_class"), "request_class", classes)


def classify_run(table: pa.Table, requirement: Requirement) -> pa.Table:
    """``classify_requests`` with each phase held to its own limits (``request_slos``); order and other columns stay."""
    burst = classify_requests(table, request_slos(requirement, Phase.BURST))["request_class"]
    other = classify_requests(table, request_slos(requirement, Phase.SUSTAINED))["request_class"]
    classes = pc.if_else(pc.equal(table["phase"], str(Phase.BURST)), burst, other)
    return table.set_column(table.schema.get_field_index("request_class"), "request_class", classes)


def phase_measures(
    table: pa.Table,
    phase: Phase,
    span: PhaseSpan,
    slos: Slos | None = None,
    *,
    steps: pa.Table | None = None,
    price: Price | None = None,
) -> PhaseMeasures:
    """Every figure of ``phase`` of one candidate (``record.columns.REQUEST_COLUMNS``, ``record.columns.STEP_COLUMNS``).

    Requests belong to the phase they were intended for and are followed to their end; completed ones are classified
    anew by ``slos`` (``request_slos``). Latencies are over the served requests, with unfinished ones censored: in a steady
    sustained phase the percentiles allow for them by Kaplan and Meier's estimate; in a burst and where the backlog grew
    (``steady_state``) they are lower bounds and marked. A figure that cannot be known at all is ``None``.

    Throughput is what came out between the phase's start and end: tokens count by their arrival, whichever phase in the
    table their request belongs to (``throughput.py``), so pass the table of all phases. What drains after the end counts for no
    throughput: in overload, dividing all tokens of the phase by its length would credit work done after it. Goodput divides the
    ok requests of the phase, even those that ended in the drain, by its length: it compares with the offered rate.
    """
    requests = read_requests(classify_requests(phase_rows(table, phase), slos or Slos()))
    output_tokens, prompt_tokens = _tokens_within(read_requests(table), span)
    offered, ok = len(requests), requests.count(RequestClass.OK)
    output_per_s, goodput_rps = output_tokens / span.duration_s, ok / span.duration_s
    usd_per_s = price.usd_per_hour / 3600.0 if price is not None else None
    queue_wait = latency_sample(requests, LatencyMetric.QUEUE_WAIT)
    steady = phase is Phase.SUSTAINED and not steady_state(table, span).drifting
    kv_usage_peak, preemptions = _kv_figures(steps, span)
    return PhaseMeasures(
        offered=offered,
        **{str(each): requests.count(each) for each in RequestClass},
        duration_s=span.duration_s,
        ttft_s=_summary(latency_sample(requests, LatencyMetric.TTFT), steady),
        itl_s=_summary(latency_sample(requests, LatencyMetric.ITL), steady),
        max_gap_s=_summary(stall_sample(requests), steady),
        tpot_s=_summary(latency_sample(requests, LatencyMetric.TPOT), steady),
        e2e_s=_summary(latency_sample(requests, LatencyMetric.E2E), steady),
        queue_wait_s=_summary(queue_wait, steady) if len(queue_wait) else None,
        goodput_rps=goodput_rps,
        goodput_fraction=ok / offered if offered else None,
        output_tokens_per_s=output_per_s,
        prompt_tokens_per_s=prompt_tokens / span.duration_s,
        prefix_hit_rate=_prefix_hit_rate(requests),
        kv_usage_peak=kv_usage_peak,
        preemptions=preemptions,
        acceptance_length=_acceptance_length(steps, span),
        output_tokens_per_usd=output_per_s / usd_per_s if usd_per_s is not None else None,
        usd_per_good_request=usd_per_s / goodput_rps if usd_per_s is not None and ok else None,
    )


def _summary(sample: Sample, steady: bool) -> Summary:
    found = summarise(sample.values, sample.censored, cut_off_at_random=steady, transient=not steady)
    return Summary.model_validate(asdict(found))


def _tokens_within(requests: Requests, span: PhaseSpan) -> tuple[float, float]:
    """Output and prompt tokens that count for the span."""
    output = output_tokens_between(requests, np.array([span.start_s, span.end_s]))
    first_s = prompts_begun_s(requests)
    begun = (first_s >= span.start_s) & (first_s < span.end_s)
    return float(output.sum()), float(np.nansum(requests.prompt_tokens[begun]))


def _prefix_hit_rate(requests: Requests) -> float | None:
    """Prompt tokens served from cache / prompt tokens, over the requests of which both are known."""
    known = ~np.isnan(requests.cached_tokens) & ~np.isnan(requests.prompt_tokens)
    prompt = float(requests.prompt_tokens[known].sum())
    return float(requests.cached_tokens[known].sum()) / prompt if prompt else None


def _acceptance_length(steps: pa.Table | None, span: PhaseSpan) -> float | None:
    """Tokens emitted per verified draft, bonus included, over the steps that began within the span; ``None`` without drafts."""
    if steps is None:
        return None
    rows = steps.filter(pc.and_(pc.greater_equal(steps["start_s"], span.start_s), pc.less(steps["start_s"], span.end_s)))
    drafts, accepted = (pc.sum(rows[name]).as_py() or 0 for name in ("drafts", "accepted"))
    return 1.0 + accepted / drafts if drafts else None


def _kv_figures(steps: pa.Table | None, span: PhaseSpan) -> tuple[float | None, int | None]:
    """Peak share of KV blocks in use and preemptions over the steps that began within the span."""
    if steps is None:
        return None, None
    within = pc.and_(pc.greater_equal(steps["start_s"], span.start_s), pc.less(steps["start_s"], span.end_s))
    rows = steps.filter(within)
    if not rows.num_rows:
        return None, 0
    peak = pc.max(pc.divide(pc.cast(rows["kv_used_blocks"], pa.float64()), pc.cast(rows["kv_blocks"], pa.float64())))
    preempted = pc.sum(rows["preempted"]).as_py()
    return peak.as_py(), int(preempted or 0)
