"""Figures and verdict of a load that was put on a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from setpoint.loop.measured import Judgement, MeasuredRun
from setpoint.measure.capacity import ASSUMED_CAPACITY, cached_capacity
from setpoint.measure.client_account import client_account
from setpoint.measure.result import Ended, LoadResult, validity
from setpoint.measure.server_account import server_figures, with_server_figures
from setpoint.record import Measured, Phase, PhaseMeasures, SloReport, Validity
from setpoint.report.assertions import assertion_check
from setpoint.report.extras import STALL_LIMIT_S, with_extras
from setpoint.report.figures import PhaseSpan, classify_run, phase_measures, request_slos
from setpoint.report.judge import FAILED_FRACTION, judge, nothing_served, overall_verdict
from setpoint.report.request_samples import phase_rows, read_requests
from setpoint.report.steady import steady_state
from setpoint.requirement import Requirement

if TYPE_CHECKING:
    import pyarrow as pa


def judged(result: LoadResult, requirement: Requirement, *, name: str, judgement: Judgement | None = None) -> MeasuredRun:
    """Figures and verdict of the rows of ``result``."""
    judgement = judgement or Judgement()
    requests = classify_run(result.requests(name), requirement)
    steps = result.steps(name)
    spans = {span.phase: PhaseSpan(span.start_s, span.end_s) for span in result.phases if span.end_s > span.start_s}
    measured = Measured(
        sustained=_figures(result, requirement, requests, steps, Phase.SUSTAINED, spans[Phase.SUSTAINED], judgement),
        burst=_figures(result, requirement, requests, steps, Phase.BURST, spans[Phase.BURST], judgement)
        if Phase.BURST in spans
        else None,
    )
    account = client_account(result, slos=requirement.slo, capacity=judgement.capacity or cached_capacity() or ASSUMED_CAPACITY)
    told = bool(result.server.metrics) or result.server.power is not None
    return MeasuredRun(
        requests,
        steps,
        measured,
        _slo_report(requests, requirement, spans, judgement),
        _validity(result, requirement, requests, spans[Phase.SUSTAINED], account["warnings"]),
        client=account,
        server=result.server.report((phase, span.start_s, span.end_s) for phase, span in spans.items()) if told else None,
        server_table=result.server.table(name) if told else None,
        decisions=result.decisions(name),
        ended=result.ended,
    )


def _figures(
    result: LoadResult,
    requirement: Requirement,
    requests: pa.Table,
    steps: pa.Table | None,
    phase: Phase,
    span: PhaseSpan,
    judgement: Judgement,
) -> PhaseMeasures:
    slos = request_slos(requirement, phase)
    figures = phase_measures(requests, phase, span, slos, steps=steps, price=requirement.price)
    figures = with_server_figures(figures, server_figures(result.server, span.start_s, span.end_s))
    stalls = [each.gap_s for each in judgement.assertions if each.kind == "stalled" and each.gap_s and each.phase is phase]
    return with_extras(figures, requests, phase, stall_limit_s=min(stalls, default=STALL_LIMIT_S))


def _slo_report(requests: pa.Table, requirement: Requirement, spans: dict[Phase, PhaseSpan], judgement: Judgement) -> SloReport:
    """The checks of the requirement and of the claims. A claim that sees failures takes the place of the check for them, but
    where nothing was served that is said."""
    checks = judge(requests, judgement.declared or requirement).checks
    seen = any(each.sees_failures and each.phase is Phase.SUSTAINED for each in judgement.assertions)
    if seen and not nothing_served(read_requests(phase_rows(requests, Phase.SUSTAINED))):
        checks = [check for check in checks if check.metric != FAILED_FRACTION]
    growing = bool(judgement.assertions) and steady_state(requests).drifting
    checks = [
        *checks,
        *(
            assertion_check(requests, spans.get(each.phase), each, growing=growing, slos=request_slos(requirement, each.phase))
            for each in judgement.assertions
        ),
    ]
    return SloReport(verdict=overall_verdict(checks), checks=checks)


def _validity(
    result: LoadResult, requirement: Requirement, requests: pa.Table, span: PhaseSpan, warnings: list[str]
) -> Validity:
    """Whether the run may be believed; of one that may, what should be known when reading it."""
    found = validity(result, requirement.slo)
    notes = [_used_up_words(result)] if result.ended is Ended.USED_UP else []
    if not found.valid:
        return Validity(valid=False, reasons=[*found.reasons, *notes])
    steady = steady_state(requests, span)
    remarks = [f"The sustained phase was {steady.words}."] if steady.words else []
    return Validity(valid=True, reasons=[*found.reasons, *notes, *warnings, *remarks])


def _used_up_words(result: LoadResult) -> str:
    """What became of a closed loop by time that had too few requests for it."""
    words = "Every planned request of the closed loop was sent before its time was up: "
    if any(row.phase is Phase.SUSTAINED for row in result.outcomes):
        return f"{words}the sustained phase ends where none was left for one who was free to send it."
    return f"{words}none was left for the sustained phase. Measure for a shorter time, or give --requests."
