"""The figures and checks of a closer look: a trial as ``Predicted`` and ``SloReport`` of the record.

A trial is of one replica; its counts, rates and length are of that replica, and ``scaled`` makes them those of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from setpoint.plan.limits import Limit, limits_of
from setpoint.plan.samples import PhaseSamples
from setpoint.plan.trial import Job
from setpoint.record import Phase, PhaseMeasures, Predicted, SloCheck, SloReport, Summary, Verdict
from setpoint.report.figures import request_slos
from setpoint.requirement import Requirement
from setpoint.simulate.run import Simulated
from setpoint.statistics import Interval, percentile_interval, proportion_interval, share_interval, summarise


def judged_trial(
    requirement: Requirement, job: Job, done: Simulated, phases: Sequence[PhaseSamples], source: str
) -> tuple[Predicted, SloReport]:
    """Figures of every phase, and one check a limit."""
    figures = {each.phase: _measures(requirement, job, done, each) for each in phases}
    predicted = Predicted(
        sustained=figures[Phase.SUSTAINED],
        burst=figures.get(Phase.BURST),
        source=source,  # type: ignore[arg-type]
    )
    by_phase = {each.phase: each for each in phases}
    checks = [_check(by_phase[limit.phase], limit, requirement) for limit in limits_of(requirement)]
    return predicted, SloReport(verdict=_overall(checks), checks=checks)


def _overall(checks: Sequence[SloCheck]) -> Verdict:
    verdicts = {check.verdict for check in checks}
    return next((each for each in (Verdict.MISSED, Verdict.INCONCLUSIVE) if each in verdicts), Verdict.MET)


def _measures(requirement: Requirement, job: Job, done: Simulated, samples: PhaseSamples) -> PhaseMeasures:
    place = next(index for index, phase in enumerate(done.load.phases) if phase.phase is samples.phase)
    span = done.load.phases[place]
    length_s = max(span.end_s - span.start_s, 1e-9)
    served = np.isfinite(samples.e2e_s)
    ok = int(np.count_nonzero(samples.severity(request_slos(requirement, samples.phase)) <= 1.0))
    rows = done.load.phase == place
    prompt = done.load.prompt_tokens[rows]
    known = np.flatnonzero(done.ledger.tokens[rows] > 0)
    price = job.shape.usd_per_gpu_h
    usd_per_s = None if price is None else price * job.shape.gpus / 3600.0
    output_per_s = done.gaps.tokens[place] / length_s
    return PhaseMeasures(
        offered=samples.offered,
        ok=ok,
        late=int(served.sum()) - ok,
        shed=samples.shed,
        failed=int(len(served) - served.sum()),
        dropped=0,
        unfinished=0,
        duration_s=length_s,
        ttft_s=_summary(samples.ttft_s),
        itl_s=_gap_summary(samples),
        max_gap_s=_summary(np.where(samples.tpot_s == samples.tpot_s, samples.deciding_gap_s, np.nan)),
        tpot_s=_summary(samples.tpot_s),
        e2e_s=_summary(samples.e2e_s),
        queue_wait_s=_summary(samples.queue_wait_s),
        goodput_rps=ok / length_s,
        goodput_fraction=ok / samples.offered if samples.offered else None,
        output_tokens_per_s=output_per_s,
        prompt_tokens_per_s=float(prompt[known].sum()) / length_s,
        prefix_hit_rate=float(done.ledger.cached_tokens[rows][known].sum() / max(prompt[known].sum(), 1)),
        kv_usage_peak=done.peak_kv,
        preemptions=int(done.ledger.preemptions[rows].sum()),
        output_tokens_per_usd=output_per_s / usd_per_s if usd_per_s else None,
        usd_per_good_request=usd_per_s * length_s / ok if usd_per_s and ok else None,
    )


def scaled(predicted: Predicted, replicas: int) -> Predicted:
    """The figures of ``replicas`` that each see such a share of the load: so many times the counts and rates."""
    counts = ("offered", "ok", "late", "shed", "failed", "dropped", "unfinished", "preemptions")
    rates = ("goodput_rps", "output_tokens_per_s", "prompt_tokens_per_s")

    def scale(figures: PhaseMeasures) -> PhaseMeasures:
        changes: dict[str, Any] = {
            name: value * replicas for name in (*counts, *rates) if (value := getattr(figures, name)) is not None
        }
        return figures.model_copy(update=changes)

    burst = scale(predicted.burst) if predicted.burst is not None else None
    return predicted.model_copy(update={"sustained": scale(predicted.sustained), "burst": burst})


def _summary(values: np.ndarray) -> Summary:
    return Summary.model_validate(asdict(summarise(values[~np.isnan(values)])))


def _gap_summary(samples: PhaseSamples) -> Summary:
    """From counts in narrow bins: no interval, because the order of the gaps is gone."""
    total = int(samples.gap_counts.sum())
    if not total:
        return Summary(n=0)
    at = {f"p{percent}": samples.percentile_s("itl", float(percent)) for percent in (50, 90, 95, 99)}
    mean = float((samples.gap_values_s * samples.gap_counts).sum() / total)
    return Summary(n=total, mean=mean, max=float(samples.gap_values_s.max()), **at)


def _check(samples: PhaseSamples, limit: Limit, requirement: Requirement) -> SloCheck:
    value, interval, verdict = _judged(samples, limit, requirement)
    return SloCheck(
        metric=limit.metric,
        statistic=limit.statistic,
        phase=limit.phase,
        limit=limit.limit,
        value=value if value is not None and np.isfinite(value) else None,
        interval=interval if interval is not None and np.isfinite(interval).all() else None,
        verdict=verdict,
    )


def _judged(samples: PhaseSamples, limit: Limit, requirement: Requirement) -> tuple[float | None, Interval | None, Verdict]:
    if limit.percent is not None:
        return _latency(samples, limit.metric, limit.percent, limit.limit)
    if limit.metric == "spread":
        p50, p99 = (samples.percentile_s(limit.statistic, percent) for percent in (50.0, 99.0))
        ratio = p99 / p50 if p50 > 0 else None
        return ratio, None, Verdict.MET if ratio is not None and ratio <= limit.limit else Verdict.MISSED
    if limit.metric == "shed_fraction":
        interval = proportion_interval(samples.shed, samples.offered)
        share = samples.shed / samples.offered if samples.offered else None
        if not limit.limit or samples.shed == 0:
            return share, interval, Verdict.MISSED if samples.shed else Verdict.MET
        return share, interval, _side(interval, limit.limit)
    severity = samples.severity(request_slos(requirement, samples.phase))
    good = np.concatenate([severity <= 1.0, np.zeros(samples.shed, dtype=np.bool_)])
    interval = share_interval(good)
    flipped = None if interval is None else (-interval[1], -interval[0])
    verdict = _side(flipped, -limit.limit) if 0 < limit.limit < 1 else Verdict.MET if good.all() else Verdict.MISSED
    return float(good.mean()) if len(good) else None, interval, verdict


def _latency(
    samples: PhaseSamples, metric: str, percent: float, limit_s: float
) -> tuple[float | None, Interval | None, Verdict]:
    allowed = 1.0 - percent / 100.0
    if metric == "itl":
        # Gaps of one step come together, so there are about as many independent ones as requests, not as gaps.
        total = samples.gap_counts.sum()
        over = samples.gap_counts[samples.gap_values_s > limit_s].sum()
        requests = len(samples.e2e_s)
        share = proportion_interval(round(over / max(total, 1) * requests), requests)
        return samples.percentile_s("itl", percent), None, _side(share, allowed)
    values = samples.column(metric)
    values = values[~np.isnan(values)]
    interval = percentile_interval(values, percent) if len(values) else None
    return samples.percentile_s(metric, percent), interval, _side(share_interval(values > limit_s), allowed)


def _side(interval: Interval | None, most: float) -> Verdict:
    """Whether what the interval holds is at most ``most``."""
    if interval is None:
        return Verdict.INCONCLUSIVE
    if interval[1] <= most:
        return Verdict.MET
    return Verdict.MISSED if interval[0] > most else Verdict.INCONCLUSIVE
