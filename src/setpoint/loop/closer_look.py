"""A closer look at a trial: its figures and checks as those of a measurement, for the report of schema 1."""

from __future__ import annotations

from setpoint.loop.simulation.figures import growing, judged, phase_figures
from setpoint.plan.keeping_up import backlog_fraction
from setpoint.plan.limits import BACKLOG, Limit, limits_of
from setpoint.record import Phase, PhaseMeasures, Predicted, SloCheck, SloReport, Verdict
from setpoint.report.figures import request_slos
from setpoint.report.judge import overall_verdict
from setpoint.requirement import Price, Requirement
from setpoint.simulate.run import Simulated
from setpoint.statistics import Interval, proportion_interval


def looked_at(requirement: Requirement, done: Simulated, source: str, usd_per_h: float | None) -> tuple[Predicted, SloReport]:
    """Figures of each phase of one replica that costs ``usd_per_h``, and one check a limit, the implied ones included."""
    price = Price(usd_per_hour=usd_per_h) if usd_per_h else None
    steady = not growing(done)

    def figures(phase: Phase) -> PhaseMeasures:
        calm = steady and phase is Phase.SUSTAINED
        return phase_figures(done, phase, request_slos(requirement, phase), price=price, steady=calm)

    burst = figures(Phase.BURST) if any(each.phase is Phase.BURST for each in done.load.phases) else None
    predicted = Predicted(sustained=figures(Phase.SUSTAINED), burst=burst, source=source)
    slo = judged(done, requirement)
    by_phase = {Phase.SUSTAINED: predicted.sustained, Phase.BURST: burst}
    implied = [
        _keeps_up(done, limit) if limit.metric == BACKLOG else _few_refused(found, limit)
        for limit in limits_of(requirement)
        if limit.implied and (found := by_phase[limit.phase]) is not None
    ]
    checks = [*slo.checks, *implied]
    return predicted, SloReport(verdict=overall_verdict(checks), checks=checks)


def _few_refused(figures: PhaseMeasures, limit: Limit) -> SloCheck:
    """That few enough are refused, where the requirement does not say it (``limits``)."""
    interval = proportion_interval(figures.shed, figures.offered)
    verdict = Verdict.INCONCLUSIVE
    if not figures.shed or (interval is not None and interval[1] <= limit.limit):
        verdict = Verdict.MET
    elif interval is not None and interval[0] > limit.limit:
        verdict = Verdict.MISSED
    return _check(limit, figures.shed / figures.offered if figures.offered else None, verdict, interval)


def _keeps_up(done: Simulated, limit: Limit) -> SloCheck:
    """That the replica keeps up with its load: that few requests wait throughout, whatever the requirement limits."""
    place = next(number for number, each in enumerate(done.load.phases) if each.phase is limit.phase)
    share = backlog_fraction(done, place)
    return _check(limit, share, Verdict.MET if share <= limit.limit else Verdict.MISSED)


def _check(limit: Limit, value: float | None, verdict: Verdict, interval: Interval | None = None) -> SloCheck:
    return SloCheck(
        metric=limit.metric,
        statistic=limit.statistic,
        phase=limit.phase,
        limit=limit.limit,
        value=value,
        interval=interval,
        verdict=verdict,
    )
