"""What a report comes to: the overall verdict, the candidate to look at first, why the others were not chosen."""

from __future__ import annotations

from enum import StrEnum

from setpoint.record import Candidate, Phase, PhaseMeasures, Report, Summary, Verdict
from setpoint.report.check_words import check_limit, check_name, check_number
from setpoint.report.format import rate
from setpoint.requirement import Requirement


class Outcome(StrEnum):
    """The verdict of a whole run."""

    MET = "met"
    MISSED = "missed"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"


IMPLIED_CHECK = "failed_fraction"
"""The check that is there where no limit would notice a failure, or nothing was served (``judge``)."""

HEADLINES = {
    Outcome.MET: "The requirement is met",
    Outcome.MISSED: "The requirement is missed",
    Outcome.INCONCLUSIVE: "Inconclusive",
    Outcome.INVALID: "Invalid run: do not rely on these figures",
}


def chosen_candidate(report: Report) -> Candidate | None:
    """The chosen candidate, or ``None`` if there is none."""
    return next((candidate for candidate in report.candidates if candidate.name == report.chosen), None)


def outcome(report: Report) -> Outcome:
    """The overall verdict: that of the chosen candidate, if the run may be believed (same rule as the exit code)."""
    if not report.validity.valid:
        return Outcome.INVALID
    chosen = chosen_candidate(report)
    if chosen is not None:
        return Outcome(chosen.slo.verdict.value)
    verdicts = {candidate.slo.verdict for candidate in report.candidates}
    return Outcome.INCONCLUSIVE if Verdict.INCONCLUSIVE in verdicts else Outcome.MISSED


def headline(report: Report) -> str:
    """One line for the banner and the terminal."""
    verdict = outcome(report)
    if report.knee is not None and verdict is not Outcome.INVALID:
        found_rps = report.knee.get("rate_rps")
        return f"The knee is at {rate(found_rps).removesuffix('/s')} requests/s" if found_rps else "The knee was not found"
    if verdict is Outcome.MET and not limits_declared(report):
        return "Simulated; no limits were declared" if report.kind == "simulate" else "Measured; no limits were declared"
    if verdict is Outcome.MISSED and report.candidates and not limits_declared(report):
        return "Measured without limits, but requests failed"
    return HEADLINES[verdict]


def limits_declared(report: Report) -> bool:
    """Whether anything was to be held: a check other than the one that nothing failed."""
    return any(check.metric != IMPLIED_CHECK for candidate in report.candidates for check in candidate.slo.checks)


def measures(candidate: Candidate, phase: Phase) -> PhaseMeasures | None:
    """What was measured in ``phase``; if nothing was measured at all, what was predicted."""
    source = candidate.measured if candidate.measured is not None else candidate.predicted
    if source is None:
        return None
    return source.burst if phase is Phase.BURST else source.sustained


def only_predicted(candidate: Candidate) -> bool:
    """Whether the candidate's figures are predictions."""
    return candidate.measured is None and candidate.predicted is not None


def summary(figures: PhaseMeasures, metric: str) -> Summary | None:
    """The summary of a latency metric by its name in a requirement."""
    found = getattr(figures, f"{metric}_s", None)
    return found if isinstance(found, Summary) else None


def statistic_s(figures: PhaseMeasures | None, metric: str, statistic: str) -> float | None:
    """One percentile in seconds; ``None`` if it is not among those recorded."""
    found = summary(figures, metric) if figures is not None else None
    value = getattr(found, statistic, None) if found is not None else None
    return float(value) if isinstance(value, int | float) else None


def in_focus(report: Report) -> Candidate | None:
    """The candidate shown first: the chosen one, else the one with the highest sustained goodput fraction."""
    chosen = chosen_candidate(report)
    if chosen is not None or not report.candidates:
        return chosen

    def goodput(candidate: Candidate) -> float:
        figures = measures(candidate, Phase.SUSTAINED)
        return (figures.goodput_fraction or 0.0) if figures is not None else -1.0

    return max(report.candidates, key=goodput)


def burst_was_run(report: Report) -> bool:
    """Whether any candidate has figures of a burst."""
    return any(measures(candidate, Phase.BURST) is not None for candidate in report.candidates)


def is_streaming(report: Report, requirement: Requirement | None) -> bool:
    """Whether answers were streamed: as the requirement says, else whether any gap between tokens was seen."""
    if requirement is not None:
        return requirement.profile.streaming
    figures = [measures(candidate, Phase.SUSTAINED) for candidate in report.candidates]
    return any(figure is not None and figure.itl_s.n > 0 for figure in figures)


def split_why(report: Report) -> tuple[str, dict[str, str]]:
    """``report.why`` as what it says of the run, and of each candidate that it says ``NAME lost: ...`` of."""
    starts = sorted(
        (at, candidate.name)
        for candidate in report.candidates
        if (at := f" {report.why}".find(f" {candidate.name} lost: ")) >= 0
    )
    if not starts:
        return report.why, {}
    ends = [at for at, _ in starts[1:]] + [len(report.why)]
    parts = {
        name: report.why[at:end].strip().removeprefix(f"{name} lost: ") for (at, name), end in zip(starts, ends, strict=True)
    }
    return report.why[: starts[0][0]].strip(), parts


def why_not(candidate: Candidate, report: Report) -> str:
    """Why ``candidate`` was not chosen: as the report says, else from its checks; empty for the chosen one."""
    if candidate.name == report.chosen or len(report.candidates) == 1:
        return ""
    _, said = split_why(report)
    if candidate.name in said:
        reason = said[candidate.name]
        return reason[:1].upper() + reason[1:]
    failed = [check for check in candidate.slo.checks if check.verdict is Verdict.MISSED]
    open_ = [check for check in candidate.slo.checks if check.verdict is Verdict.INCONCLUSIVE]
    if failed:
        return "Missed " + "; ".join(
            f"{check_name(check)} {check_number(check, check.value)}, limit {check_limit(check)} ({check.phase})"
            for check in failed
        )
    if open_:
        return "Not shown to meet " + "; ".join(f"{check_name(c)} {check_limit(c)} ({c.phase})" for c in open_)
    return "Met every limit" if candidate.measured is not None else "Not measured"
