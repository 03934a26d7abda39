"""The figures of a phase from its request table: classes, latencies, goodput, throughput, cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass

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
from setpoint.requirement import LatencyMetric, Price, Requirement, Slos
from setpoint.statistics import BoolArray, summarise


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """When a phase began and ended, on the axis of the request table. Its requests may end later: they drain."""

    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not self.end_s > self.start_s:
            raise ValueError(f"a phase must end after its start, found {self.start_s:g} s to {self.end_s:g} s")

    @property
    def duration_s(self) -> float:
        """Seconds from start to end, draining not included."""
        return self.end_s - self.start_s


def request_slos(requirement: Requirement, phase: Phase) -> Slos:
    """The limits that one request of ``phase`` is held to.

    In the burst these are ``slo_burst`` if it limits any latency, and otherwise the sustained ones: a burst
    requirement such as "90 % goodput" says how many may be late, not what late means.
    """
    return requirement.slo_burst if phase == Phase.BURST and requirement.slo_burst.latency else requirement.slo


def classify(requests: Requests, slos: Slos) -> BoolArray:
    """Which requests, if they were completed, are ok (DESIGN.md section 3); the others are late.

    TTFT, TPOT and E2E are held to the tightest limit declared at any percentile. Of its own gaps a request may have at
    most 1 - p over each ITL limit stated at percentile p. An answer that is not streamed has an E2E only. Queue wait is
    judged on the run, not on a request. Without limits every completed request is ok.
    """
    ok = np.ones(len(requests), dtype=np.bool_)
    for metric, values in (
        (LatencyMetric.TTFT, requests.ttft_s()),
        (LatencyMetric.TPOT, requests.tpot_s()),
        (LatencyMetric.E2E, requests.e2e_s()),
    ):
        limit_s = slos.limit_s(metric)
        if limit_s is not None:
            ok &= np.isnan(values) | (values <= limit_s)
    gaps, owner, _ = requests.gaps()
    counts = np.bincount(owner, minlength=len(requests))
    for slo in slos.latency:
        if slo.metric == LatencyMetric.ITL:
            over = np.bincount(owner[gaps > slo.limit_s], minlength=len(requests))
            ok &= over <= (1.0 - slo.percentile / 100.0) * counts + 1e-9
    return ok


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
    """Every figure of ``phase`` of one candidate (``record.REQUEST_COLUMNS``, ``record.STEP_COLUMNS``).

    Requests belong to the phase they were intended for and are followed to their end; completed ones are classified
    anew by ``slos`` (``request_slos``). Latencies are over the served requests, with unfinished ones censored; a figure
    that cannot be known for that reason is ``None``.

    Throughput is what came out between the phase's start and end: tokens count by their arrival, whichever phase in the
    table their request belongs to, so pass the table of all phases. What drains after the end counts for no
    throughput: in overload, dividing all tokens of the phase by its length would credit work done after it. An
    answer that is not streamed counts at its end, a prompt at its first token. Goodput divides the ok requests
    of the phase, even those that ended in the drain, by its length: it compares with the offered rate.
    """
    requests = read_requests(classify_requests(phase_rows(table, phase), slos or Slos()))
    output_tokens, prompt_tokens = _tokens_within(read_requests(table), span)
    offered, ok = len(requests), requests.count(RequestClass.OK)
    output_per_s, goodput_rps = output_tokens / span.duration_s, ok / span.duration_s
    usd_per_s = price.usd_per_hour / 3600.0 if price is not None else None
    queue_wait = latency_sample(requests, LatencyMetric.QUEUE_WAIT)
    kv_usage_peak, preemptions = _kv_figures(steps, span)
    return PhaseMeasures(
        offered=offered,
        **{str(each): requests.count(each) for each in RequestClass},
        duration_s=span.duration_s,
        ttft_s=_summary(latency_sample(requests, LatencyMetric.TTFT)),
        itl_s=_summary(latency_sample(requests, LatencyMetric.ITL)),
        max_gap_s=_summary(stall_sample(requests)),
        tpot_s=_summary(latency_sample(requests, LatencyMetric.TPOT)),
        e2e_s=_summary(latency_sample(requests, LatencyMetric.E2E)),
        queue_wait_s=_summary(queue_wait) if len(queue_wait) else None,
        goodput_rps=goodput_rps,
        goodput_fraction=ok / offered if offered else None,
        output_tokens_per_s=output_per_s,
        prompt_tokens_per_s=prompt_tokens / span.duration_s,
        prefix_hit_rate=_prefix_hit_rate(requests),
        kv_usage_peak=kv_usage_peak,
        preemptions=preemptions,
        output_tokens_per_usd=output_per_s / usd_per_s if usd_per_s is not None else None,
        usd_per_good_request=usd_per_s / goodput_rps if usd_per_s is not None and ok else None,
    )


def _summary(sample: Sample) -> Summary:
    return Summary.model_validate(asdict(summarise(sample.values, sample.censored)))


def _tokens_within(requests: Requests, span: PhaseSpan) -> tuple[float, float]:
    """Output and prompt tokens that count for the span."""
    times = requests.token_times_s
    timed = np.count_nonzero((times >= span.start_s) & (times < span.end_s))
    has_times = np.bincount(requests.token_owner, minlength=len(requests)) > 0
    served = requests.is_class(*SERVED)
    at_end = served & ~has_times & (requests.end_s >= span.start_s) & (requests.end_s < span.end_s)
    first = np.where(np.isnan(requests.first_s) & served, requests.end_s, requests.first_s)
    begun = (first >= span.start_s) & (first < span.end_s)
    return (
        float(timed + np.nansum(requests.output_tokens[at_end])),
        float(np.nansum(requests.prompt_tokens[begun])),
    )


def _prefix_hit_rate(requests: Requests) -> float | None:
    """Prompt tokens served from cache / prompt tokens, over the requests of which both are known."""
    known = ~np.isnan(requests.cached_tokens) & ~np.isnan(requests.prompt_tokens)
    prompt = float(requests.prompt_tokens[known].sum())
    return float(requests.cached_tokens[known].sum()) / prompt if prompt else None


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
