"""The report in a terminal: readable at 80 columns, and in a pipe without colour."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from setpoint.record import Candidate, Phase, PhaseMeasures, Report, Verdict
from setpoint.report.check_words import check_interval, check_limit, check_name, check_number
from setpoint.report.format import UNKNOWN, number, percent, rate, seconds
from setpoint.report.terminal_one import render_one
from setpoint.report.terminal_tuning import render_tuning
from setpoint.report.terminal_writer import Writer
from setpoint.report.verdicts import (
    Outcome,
    burst_was_run,
    headline,
    in_focus,
    measures,
    only_predicted,
    outcome,
    split_why,
    statistic_s,
)
from setpoint.report.words import VERDICT_WORDS

STYLES = {"met": "green", "missed": "red", "inconclusive": "yellow", "invalid": "bold red"}
PHASES = (Phase.SUSTAINED, Phase.BURST)
NARROW_COLUMNS = 100


def _verdict(writer: Writer, verdict: Verdict) -> Text:
    word = VERDICT_WORDS[verdict]
    if verdict is Verdict.INCONCLUSIVE and writer.console.width < NARROW_COLUMNS:
        word = "unclear"
    return writer.text(word, STYLES[verdict.value])


def _short(value_s: float | None) -> str:
    """A duration without a space: five characters at most up to 999 s."""
    return seconds(value_s, gap="")


def _overview_cells(figures: PhaseMeasures | None) -> list[str]:
    if figures is None:
        return [UNKNOWN] * 9
    latencies = [("ttft", "p50"), ("ttft", "p95"), ("ttft", "p99"), ("itl", "p50"), ("itl", "p99"), ("e2e", "p99")]
    cells = [_short(statistic_s(figures, metric, level)) for metric, level in latencies]
    good = percent(figures.goodput_fraction, gap="")
    shed = f"{100 * figures.shed / figures.offered:.0f}%" if figures.offered else UNKNOWN
    return [*cells, good, number(figures.output_tokens_per_s), shed]


def _overview(writer: Writer, report: Report, phase: Phase) -> Table:
    """All candidates in ``phase``, one a row; the chosen one is marked."""
    roomy = writer.console.width >= NARROW_COLUMNS
    table = writer.table(str(phase).capitalize())
    if roomy:
        table.padding = (0, 1, 0, 0)
    table.add_column("", no_wrap=True, width=1)
    table.add_column("rate" if report.knee else "candidate", overflow="fold", max_width=28 if roomy else 16)
    table.add_column("verdict", no_wrap=True)
    for heading in ("TTFT\nP50", "TTFT\nP95", "TTFT\nP99", "ITL\nP50", "ITL\nP99", "E2E\nP99", "good-\nput", "tok/s", "shed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for candidate in report.candidates:
        chosen = candidate.name == report.chosen
        name = _label(report, candidate) + (" (predicted)" if only_predicted(candidate) else "")
        table.add_row(
            writer.text(">" if chosen else "", "bold"),
            writer.text(name, "bold" if chosen else ""),
            _verdict(writer, candidate.slo.verdict),
            *(writer.text(cell) for cell in _overview_cells(measures(candidate, phase))),
        )
    return table


def _label(report: Report, candidate: Candidate) -> str:
    """What a row is about: the candidate, or in a search for the knee the rate that was probed."""
    probed_rps = candidate.config.get("rate_rps")
    return rate(float(probed_rps)) if report.knee and isinstance(probed_rps, int | float) else candidate.name


def _checks(writer: Writer, candidate: Candidate) -> Table:
    """The SLO checks of one candidate."""
    table = writer.table(f"Limits of {candidate.name}")
    table.padding = (0, 1, 0, 0)
    for heading in ("limit on", "phase"):
        table.add_column(heading, no_wrap=True)
    for heading in ("limit", "value", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for check in candidate.slo.checks:
        cells = (
            check_name(check), str(check.phase), check_limit(check), check_number(check, check.value), check_interval(check)
        )  # fmt: skip
        table.add_row(*(writer.text(cell) for cell in cells), _verdict(writer, check.verdict))
    return table


def _why(writer: Writer, report: Report) -> None:
    """Why the chosen one won, then a line for each that lost, then remarks on the run."""
    won, lost = split_why(report)
    if won:
        writer.print(won)
    for name, reason in lost.items():
        writer.console.print(Padding(Text.assemble(writer.text(name, "bold"), writer.text(f" lost: {reason}")), (0, 0, 0, 2)))
    if report.validity.valid:
        for reason in report.validity.reasons:
            writer.print(f"Remark: {reason}", "dim")


def render_terminal(report: Report, console: Console) -> None:
    """Print ``report``: the verdict, figures, the checks of the chosen candidate, and why.

    Several candidates get a table with a row for each; a single one all its figures, phase by phase. Without a chosen
    candidate the checks shown are those of the one with the highest goodput fraction. Words carry everything that
    colour does.
    """
    writer = Writer(console)
    verdict = outcome(report)
    title = (report.requirement or {}).get("name")
    line = Text.assemble(
        writer.text(headline(report), f"bold {STYLES[verdict.value]}"),
        writer.text(f"   {title}" if isinstance(title, str) else ""),
    )
    console.print()
    console.print(line)
    if verdict is Outcome.INVALID:
        for reason in report.validity.reasons:
            writer.print(f"  {reason}", STYLES["invalid"])
    console.print()
    if not report.candidates:
        writer.print("There are no candidates.")
    elif len(report.candidates) == 1:
        render_one(writer, report.candidates[0])
    else:
        console.print(_overview(writer, report, Phase.SUSTAINED))
        if burst_was_run(report):
            console.print()
            console.print(_overview(writer, report, Phase.BURST))
    shown = in_focus(report)
    if shown is not None and shown.slo.checks:
        console.print()
        console.print(_checks(writer, shown))
    console.print()
    if report.tuning is not None:
        render_tuning(writer, report.tuning)
    _why(writer, report)
