"""The report in a terminal: readable at 80 columns, and in a pipe without colour."""

from __future__ import annotations

from rich.box import ASCII_DOUBLE_HEAD, SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from setpoint.record import Candidate, Phase, PhaseMeasures, Report, Verdict
from setpoint.report.format import NO_BREAK, UNKNOWN, count, interval_s, number, percent, printable, rate, seconds
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
    summary,
)
from setpoint.report.words import VERDICT_WORDS, check_interval, check_limit, check_name, check_number, metric_name

STYLES = {"met": "green", "missed": "red", "inconclusive": "yellow", "invalid": "bold red"}
PHASES = (Phase.SUSTAINED, Phase.BURST)
NARROW_COLUMNS = 100
LATENCIES = ("ttft", "itl", "max_gap", "tpot", "e2e", "queue_wait")
LEVELS = (("P50", "p50"), ("P90", "p90"), ("P95", "p95"), ("P99", "p99"))


class _Writer:
    """A console and what depends on it: which characters it can show, how wide it is."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.ascii = console.options.ascii_only

    def plain(self, text: str) -> str:
        """``text`` without control characters and with plain spaces, in ASCII where the console can show nothing else."""
        text = printable(text).replace(NO_BREAK, " ")
        if not self.ascii:
            return text
        for found, instead in (("≤", "<="), ("≥", ">="), ("–", "-"), ("·", "-"), ("…", "...")):
            text = text.replace(found, instead)
        return text.encode("ascii", "replace").decode("ascii")

    def text(self, text: str, style: str = "") -> Text:
        """Text that is never read as markup."""
        return Text(self.plain(text), style=style)

    def table(self, title: str = "") -> Table:
        """An empty table in the house style, its title on the left."""
        box = ASCII_DOUBLE_HEAD if self.ascii else SIMPLE_HEAD
        heading = self.text(title, "bold") if title else None
        return Table(
            box=box,
            title=heading,
            title_justify="left",
            padding=(0, 0),
            collapse_padding=True,
            pad_edge=False,
            show_edge=False,
        )

    def print(self, text: str = "", style: str = "") -> None:
        """One paragraph, wrapped at words."""
        self.console.print(self.text(text, style))


def _verdict(writer: _Writer, verdict: Verdict) -> Text:
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


def _overview(writer: _Writer, report: Report, phase: Phase) -> Table:
    """All candidates in ``phase``, one a row; the chosen one is marked."""
    roomy = writer.console.width >= NARROW_COLUMNS
    table = writer.table(str(phase).capitalize())
    if roomy:
        table.padding = (0, 1, 0, 0)
    table.add_column("", no_wrap=True, width=1)
    table.add_column("candidate", overflow="fold", max_width=28 if roomy else 16)
    table.add_column("verdict", no_wrap=True)
    for heading in ("TTFT\nP50", "TTFT\nP95", "TTFT\nP99", "ITL\nP50", "ITL\nP99", "E2E\nP99", "good-\nput", "tok/s", "shed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for candidate in report.candidates:
        chosen = candidate.name == report.chosen
        name = candidate.name + (" (predicted)" if only_predicted(candidate) else "")
        table.add_row(
            writer.text(">" if chosen else "", "bold"),
            writer.text(name, "bold" if chosen else ""),
            _verdict(writer, candidate.slo.verdict),
            *(writer.text(cell) for cell in _overview_cells(measures(candidate, phase))),
        )
    return table


def _checks(writer: _Writer, candidate: Candidate) -> Table:
    """The SLO checks of one candidate."""
    table = writer.table(f"Limits of {candidate.name}")
    table.padding = (0, 2, 0, 0)
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


def _latency_rows(metric: str, columns: list[PhaseMeasures]) -> list[tuple[str, list[str]]]:
    """n, the percentiles, the interval of P99 and the largest value of one latency, a column a phase."""
    found = [summary(figures, metric) for figures in columns]
    if all(each is None or each.n == 0 for each in found):
        return []
    name = "Largest gap" if metric == "max_gap" else metric_name(metric)
    rows = [(f"{name}, samples", [count(each.n) if each else UNKNOWN for each in found])]
    for label, level in LEVELS:
        rows.append((f"  {label}", [seconds(getattr(each, level)) if each else UNKNOWN for each in found]))
    rows.append(("  P99, 95 % interval", [interval_s(each.p99_ci) if each else UNKNOWN for each in found]))
    rows.append(("  largest", [seconds(each.max) if each else UNKNOWN for each in found]))
    return rows


def _load_rows(columns: list[PhaseMeasures]) -> list[tuple[str, list[str]]]:
    """Load, endings and rates, a column a phase; rows nothing is known of are left out."""
    rows = [
        ("Requests offered", [count(f.offered) for f in columns]),
        *((f"  {name}", [count(getattr(f, name)) for f in columns]) for name in ("ok", "late", "shed", "failed")),
        ("  dropped, unfinished", [f"{count(f.dropped)}, {count(f.unfinished)}" for f in columns]),
        ("Goodput", [f"{rate(f.goodput_rps)} ({percent(f.goodput_fraction)})" for f in columns]),
        ("Output tokens/s", [number(f.output_tokens_per_s) for f in columns]),
        ("Prompt tokens/s", [number(f.prompt_tokens_per_s) for f in columns]),
        ("Prefix hit rate", [percent(f.prefix_hit_rate) for f in columns]),
        ("KV usage, peak", [percent(f.kv_usage_peak) for f in columns]),
        ("Preemptions", [count(f.preemptions) for f in columns]),
        ("Acceptance length", [number(f.acceptance_length) for f in columns]),
        ("Output tokens per USD", [number(f.output_tokens_per_usd) for f in columns]),
    ]
    return [(name, cells) for name, cells in rows if any(cell != UNKNOWN for cell in cells)]


def _vertical(writer: _Writer, candidate: Candidate) -> Table:
    """One candidate from top to bottom, its phases side by side."""
    known = [(phase, figures) for phase in PHASES if (figures := measures(candidate, phase)) is not None]
    table = writer.table()
    table.padding = (0, 3, 0, 0)
    table.add_column(writer.text("predicted" if only_predicted(candidate) else ""), no_wrap=True)
    for phase, _ in known:
        table.add_column(str(phase), justify="right", no_wrap=True)
    columns = [figures for _, figures in known]
    groups = [_load_rows(columns)] + [_latency_rows(metric, columns) for metric in LATENCIES]
    for group in groups:
        for index, (name, cells) in enumerate(group):
            last = index == len(group) - 1
            style = "" if name.startswith(" ") else "bold"
            table.add_row(writer.text(name, style), *(writer.text(cell) for cell in cells), end_section=last)
    return table


def _why(writer: _Writer, report: Report) -> None:
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

    Several candidates get a table a phase; a single one a list with the phases side by side. Without a chosen
    candidate the checks shown are those of the one with the highest goodput fraction. Words carry everything that
    colour does.
    """
    writer = _Writer(console)
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
        console.print(_vertical(writer, report.candidates[0]))
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
    _why(writer, report)
