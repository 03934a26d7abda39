"""What a simulation says of a phase, in the figures and checks of measurements (``record.PhaseMeasures``, ``SloReport``).

Moments are the client's: what the way there and back takes (``Overheads``) is in them. Latencies are judged as measured ones
are (``report/judge.py``). Gaps are counted, not listed: their percentiles are exact to the width of a bin
(``simulate/gaps.py``), and the interval of the share beyond a limit is that of a ratio over ``BATCHES`` parts of the requests.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from setpoint.record import Phase, PhaseMeasures, RequestClass, SloCheck, SloReport, Summary, Verdict
from setpoint.report.figures import request_slos, severity
from setpoint.report.judge import (
    JudgedPhase,
    failure_check,
    not_for_long,
    nothing_served,
    overall_verdict,
    phase_checks,
    sees_failures,
)
from setpoint.report.request_samples import Requests, Sample, latency_sample
from setpoint.report.span import PhaseSpan
from setpoint.report.steady import drift
from setpoint.requirement import LatencyMetric, LatencySlo, Price, Requirement, Slos, SpreadSlo
from setpoint.simulate.gaps import GapCounts
from setpoint.simulate.ledger import Ending
from setpoint.simulate.run import Simulated
from setpoint.statistics import FloatArray, IntArray, Interval, summarise
from setpoint.statistics.student import student_quantile

CLASSES = {
    Ending.WAITS: RequestClass.UNFINISHED,
    Ending.SERVED: RequestClass.OK,
    Ending.REFUSED: RequestClass.SHED,
    Ending.SHED: RequestClass.SHED,
    Ending.IMPOSSIBLE: RequestClass.FAILED,
}
BATCHES = 20
LEAST_REQUESTS = 2 * BATCHES
MOST_JUDGED_FOR_DRIFT = 200_000
NEAR = 0.02
"""A spread this near to its limit is not decided."""
STALL_LIMIT_S = 0.5


@dataclass(frozen=True, slots=True)
class SimulatedRequests(Requests):
    """Requests whose gaps were counted. gap_s: the largest of each; late_gaps: those longer than each of ``limits_s``."""

    gap_s: FloatArray
    late_gaps: IntArray
    limits_s: tuple[float, ...]

    def deciding_gap_s(self, slo: LatencySlo) -> FloatArray:
        """The largest gap (at most the limit) where few enough were longer than the limit, infinite where too many were."""
        gaps = np.maximum(self.output_tokens - 1.0, 0.0)
        late = self.late_gaps[self.limits_s.index(slo.limit_s)]
        kept = ~self.streaming | (late <= np.floor((1.0 - slo.percentile / 100.0) * gaps + 1e-9))
        return np.where(kept, np.minimum(np.nan_to_num(self.gap_s), slo.limit_s), np.inf)


def gap_limits_s(requirement: Requirement) -> tuple[float, ...]:
    """The limits that gaps are to be counted against for the requirement to be judged (``simulate``)."""
    return tuple(sorted({slo.limit_s for slos in (requirement.slo, requirement.slo_burst) for slo in _itl(slos)}))


def phase_requests(done: Simulated, phase: Phase | None = None) -> SimulatedRequests:
    """The requests of a phase (``None``: all), as their client saw them, in the order of their sends."""
    load, ledger, overheads = done.load, done.ledger, done.overheads
    places = [place for place, each in enumerate(load.phases) if phase is None or each.phase is phase]
    rows = np.isin(load.phase, places)
    ending = ledger.ending[rows]
    turned_away = np.isin(ending, (Ending.REFUSED, Ending.SHED, Ending.IMPOSSIBLE))
    classes = np.array([str(CLASSES[each]) for each in Ending])[ending]
    streaming = np.array([kind.streaming for kind in load.kinds])[0 if load.kind is None else load.kind[rows]]
    last_s = ledger.last_s[rows] + overheads.deliver_s
    served = ending == Ending.SERVED
    watched_s = load.phases[-1].end_s + load.drain_s if np.isfinite(load.drain_s) else done.end_s
    ended_s = np.where(turned_away, ledger.ended_s[rows] + overheads.refuse_s, np.where(served, last_s, watched_s))
    joined_s = ledger.joined_s[rows] - load.sent_s[rows] - overheads.receive_s
    return SimulatedRequests(
        classes=classes,
        streaming=np.broadcast_to(streaming, rows.sum()),
        intended_s=load.sent_s[rows],
        first_s=ledger.first_s[rows] + overheads.deliver_s,
        last_s=last_s,
        end_s=np.where(np.isnan(last_s), ended_s, last_s),
        cutoff_s=ended_s,
        output_tokens=ledger.tokens[rows].astype(np.float64),
        prompt_tokens=load.prompt_tokens[rows].astype(np.float64),
        cached_tokens=np.where(np.isnan(joined_s), np.nan, ledger.cached_tokens[rows]),
        queue_wait_s=joined_s,
        token_times_s=np.zeros(0),
        token_owner=np.zeros(0, dtype=np.int64),
        not_due=np.zeros(len(classes), dtype=np.bool_),
        gap_s=ledger.gap_s[rows],
        late_gaps=ledger.late_gaps[:, rows],
        limits_s=done.gaps.limits_s,
    )


def phase_gaps(done: Simulated, phase: Phase) -> GapCounts:
    """All gaps of the requests of a phase."""
    found = GapCounts()
    for place, each in enumerate(done.load.phases):
        if each.phase is phase:
            found.take(done.gaps.counts[place])
    return found


def growing(done: Simulated) -> bool:
    """Whether a backlog grew throughout the sustained phase (``report/steady.py``)."""
    span = _span(done, Phase.SUSTAINED)
    rows = phase_requests(done)
    if span is None or len(rows) > MOST_JUDGED_FOR_DRIFT:
        return False
    return drift(rows, span)[0]


def phase_figures(
    done: Simulated, phase: Phase, slos: Slos, *, price: Price | None = None, steady: bool = True
) -> PhaseMeasures:
    """Every figure of a phase, its completed requests held to ``slos``. ``price``: of the whole system."""
    requests = phase_requests(done, phase)
    good = severity(requests, slos) <= 1.0
    counts = {each: requests.count(each) for each in RequestClass}
    ok = int(good.sum())
    counts[RequestClass.LATE], counts[RequestClass.OK] = counts[RequestClass.OK] - ok, ok
    seconds = sum(each.end_s - each.start_s for each in done.load.phases if each.phase is phase)
    output = sum(n for n, each in zip(done.gaps.tokens, done.load.phases, strict=True) if each.phase is phase)
    begun = [
        (requests.first_s >= each.start_s) & (requests.first_s < each.end_s) for each in done.load.phases if each.phase is phase
    ]
    prompt = float(requests.prompt_tokens[np.logical_or.reduce(begun)].sum())
    usd_per_s = None if price is None else price.usd_per_hour / 3600.0
    gaps = requests.gap_s[~np.isnan(requests.gap_s)]
    hits = requests.cached_tokens[~np.isnan(requests.cached_tokens)]
    joined = requests.prompt_tokens[~np.isnan(requests.cached_tokens)]
    queue_wait = latency_sample(requests, LatencyMetric.QUEUE_WAIT)
    refused = requests.is_class(RequestClass.SHED)

    def summary(metric: LatencyMetric) -> Summary:
        return _summary(latency_sample(requests, metric), steady)

    return PhaseMeasures(
        offered=len(requests),
        **{str(each): count for each, count in counts.items()},
        duration_s=seconds,
        ttft_s=summary(LatencyMetric.TTFT),
        itl_s=gap_summary(phase_gaps(done, phase)),
        max_gap_s=_summary(Sample(gaps, np.zeros(len(gaps), dtype=np.bool_)), steady),
        tpot_s=summary(LatencyMetric.TPOT),
        e2e_s=summary(LatencyMetric.E2E),
        queue_wait_s=_summary(queue_wait, steady) if len(queue_wait) else None,
        goodput_rps=ok / seconds,
        goodput_fraction=ok / len(requests) if len(requests) else None,
        output_tokens_per_s=output / seconds,
        prompt_tokens_per_s=prompt / seconds,
        prefix_hit_rate=float(hits.sum() / joined.sum()) if len(joined) else None,
        kv_usage_peak=done.peak_kv,
        acceptance_length=done.drafts.acceptance_length,
        preemptions=int(done.ledger.preemptions[np.isin(done.load.phase, _places(done, phase))].sum()),
        output_tokens_per_usd=output / seconds / usd_per_s if usd_per_s else None,
        usd_per_good_request=usd_per_s * seconds / ok if usd_per_s and ok else None,
        refusal_s=_summary(
            Sample((requests.end_s - requests.intended_s)[refused], np.zeros(int(refused.sum()), np.bool_)), True
        )
        if refused.any()
        else None,
        stalled_fraction=float((gaps > STALL_LIMIT_S).mean()) if len(gaps) else None,
        stall_limit_s=STALL_LIMIT_S if len(gaps) else None,
    )


def judged(done: Simulated, requirement: Requirement) -> SloReport:
    """The verdict, one check a limit, as ``report.judge.judge`` gives it for a measurement."""
    rising = growing(done)
    checks: list[SloCheck] = []
    for phase, slos in ((Phase.SUSTAINED, requirement.slo), (Phase.BURST, requirement.slo_burst)):
        burst = phase is Phase.BURST
        if burst and not _places(done, phase):
            continue
        requests = phase_requests(done, phase)
        rows = JudgedPhase(requests, phase, course=burst or rising, growing=rising and not burst)
        others = slos.model_copy(
            update={
                "latency": tuple(slo for slo in slos.latency if slo.metric is not LatencyMetric.ITL),
                "spread": tuple(slo for slo in slos.spread if slo.metric is not LatencyMetric.ITL),
            }
        )
        gaps = phase_gaps(done, phase)
        itl = [_gap_check(requests, gaps, slo, phase) for slo in _itl(slos)]
        itl += [_gap_spread(gaps, slo, phase) for slo in slos.spread if slo.metric is LatencyMetric.ITL]
        checks += [not_for_long(rows, check) for check in itl]
        checks += phase_checks(rows, others, request_slos(requirement, phase))
        if not burst and (not sees_failures(slos) or nothing_served(requests)):
            checks.append(failure_check(rows))
    return SloReport(verdict=overall_verdict(checks), checks=checks)


def gap_summary(gaps: GapCounts) -> Summary:
    """Gaps in a few figures; percentiles by nearest rank to the width of a bin."""
    total = gaps.total
    if not total:
        return Summary(n=0)
    levels = {f"p{level:g}": gaps.percentile(level) for level in (50.0, 90.0, 95.0, 99.0)}
    return Summary(n=total, mean=gaps.sum_s / total, max=gaps.most_s, **levels)


def _gap_check(requests: SimulatedRequests, gaps: GapCounts, slo: LatencySlo, phase: Phase) -> SloCheck:
    """Whether at most 1 - p of all gaps are over the limit, by the interval of that share."""
    late = requests.late_gaps[requests.limits_s.index(slo.limit_s)].astype(np.float64)
    counts = np.where(np.isnan(requests.gap_s), 0.0, np.maximum(requests.output_tokens - 1.0, 0.0))
    interval = _share_interval(late, counts)
    allowed, verdict = 1.0 - slo.percentile / 100.0, Verdict.INCONCLUSIVE
    if interval is not None and interval[1] <= allowed:
        verdict = Verdict.MET
    elif interval is not None and interval[0] > allowed:
        verdict = Verdict.MISSED
    return SloCheck(
        metric=str(slo.metric),
        statistic=slo.statistic,
        phase=phase,
        limit=slo.limit_s,
        value=gaps.percentile(slo.percentile),
        interval=None,
        verdict=verdict,
    )


def _share_interval(late: FloatArray, counts: FloatArray) -> Interval | None:
    """95 % of ``sum(late) / sum(counts)`` by the ratios of ``BATCHES`` parts in order; ``None`` for too few requests.

    Source: the ratio estimator over batch means (Cochran, Sampling Techniques, 1977, chapter 6).
    """
    if len(late) < LEAST_REQUESTS or not counts.sum():
        return None
    edges = np.linspace(0, len(late), BATCHES + 1).astype(np.int64)[:-1]
    hits, sizes = np.add.reduceat(late, edges), np.add.reduceat(counts, edges)
    share = hits.sum() / sizes.sum()
    deviation = np.sqrt(np.square(hits - share * sizes).sum() / (BATCHES * (BATCHES - 1))) / sizes.mean()
    half = student_quantile(0.975, BATCHES - 1) * float(deviation)
    return max(0.0, float(share) - half), min(1.0, float(share) + half)


def _gap_spread(gaps: GapCounts, slo: SpreadSlo, phase: Phase) -> SloCheck:
    p50, p99 = gaps.percentile(50.0), gaps.percentile(99.0)
    value = p99 / p50 if p99 is not None and p50 else None
    verdict = Verdict.INCONCLUSIVE
    if value is not None and abs(value / slo.limit - 1.0) > NEAR:
        verdict = Verdict.MET if value < slo.limit else Verdict.MISSED
    return SloCheck(
        metric="spread",
        statistic=str(slo.metric),
        phase=phase,
        limit=slo.limit,
        value=value,
        interval=None,
        verdict=verdict,
    )


def _itl(slos: Slos) -> list[LatencySlo]:
    return [slo for slo in slos.latency if slo.metric is LatencyMetric.ITL]


def _places(done: Simulated, phase: Phase) -> list[int]:
    return [place for place, each in enumerate(done.load.phases) if each.phase is phase]


def _span(done: Simulated, phase: Phase) -> PhaseSpan | None:
    spans = [each for each in done.load.phases if each.phase is phase]
    return PhaseSpan(spans[0].start_s, spans[-1].end_s) if spans else None


def _summary(sample: Sample, steady: bool) -> Summary:
    found = summarise(sample.values, sample.censored, cut_off_at_random=steady, transient=not steady)
    return Summary.model_validate(asdict(found))
