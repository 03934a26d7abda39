"""A comparison on a terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.box import ASCII_DOUBLE_HEAD, SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from setpoint.record import Phase
from setpoint.report.comparison import Better, Comparison, Ends, FigureComparison, Side
from setpoint.report.format import NO_BREAK, UNKNOWN, number, percent, printable, rate, seconds
from setpoint.report.words import metric_name

STYLES = {Better.A: "magenta", Better.B: "cyan", Better.UNDECIDED: "dim"}
NAMES = {
    "goodput_fraction": "Goodput, of offered",
    "shed_fraction": "Shed",
    "failed_fraction": "Failed or dropped",
    "goodput": "Goodput",
    "output_tokens": "Output tokens",
}
HEADINGS = ("", "A", "B", "B - A", "B - A, interval", "verdict")
NARROW_COLUMNS = 96
PLAIN = (("–", "-"), ("…", "..."), ("−", "-"), ("→", "->"))


def render_comparison(comparison: Comparison, console: Console) -> None:
    """Print what changed: a table a phase with every verdict, what it rests on, and the warnings."""
    plain = _plain(console)
    for side, name in ((comparison.a, "A"), (comparison.b, "B")):
        console.print(Text(plain(f"{name}  {_side(side)}")))
    for change in comparison.changed:
        console.print(Text(plain(f"   changed: {change.replace(' -> ', ' → ')}")))
    for phase in dict.fromkeys(figure.phase for figure in comparison.figures):
        console.print(_phase_table(comparison, phase, console, plain))
    console.print(Text(plain(comparison.words), style="bold"))
    console.print(Text(plain(comparison.multiple_comparisons), style="dim"))
    for warning in comparison.warnings:
        console.print(Text(plain(f"Warning: {warning}"), style="yellow"))


def _phase_table(comparison: Comparison, phase: Phase, console: Console, plain: Callable[[str], str]) -> Table:
    """The figures of one phase. A narrow console has no room for the difference itself: its interval is shown."""
    ascii_only, narrow = console.options.ascii_only, console.width < NARROW_COLUMNS
    how = "between rounds" if comparison.method == "between" else "within each run"
    title = f"{phase.value.capitalize()}; {100 * comparison.confidence:.0f} % intervals from the variation {how}"
    table = Table(
        box=ASCII_DOUBLE_HEAD if ascii_only else SIMPLE_HEAD, title=plain(title), title_justify="left", pad_edge=False
    )
    table.title_style = "bold"
    headings = ["", "A", "B", "B - A", "B - A, interval", "verdict"]
    for heading in headings:
        if not (narrow and heading == "B - A"):
            table.add_column(heading, justify="left" if heading in ("", "verdict") else "right")
    for figure in comparison.figures:
        if figure.phase == phase and not _empty(figure):
            cells = [
                cell for cell, heading in zip(_cells(figure), headings, strict=True) if not (narrow and heading == "B - A")
            ]
            table.add_row(*(Text(plain(cell), style=style) for cell, style in cells))
    return table


def _cells(figure: FigureComparison) -> list[tuple[str, str]]:
    show = _shower(figure.unit)
    verdict = figure.remark if figure.remark and figure.verdict is Better.UNDECIDED else figure.verdict.value
    return [
        (_name(figure), ""),
        (show(figure.a), ""),
        (show(figure.b), ""),
        (_signed(figure.difference, show), ""),
        (_interval(figure.difference_interval, figure.unit, show), ""),
        (verdict + (" *" if figure.stands_alone else ""), STYLES[figure.verdict]),
    ]


def _name(figure: FigureComparison) -> str:
    if figure.metric in NAMES:
        return NAMES[figure.metric]
    name = metric_name(figure.metric)
    return f"{name} P99/P50" if figure.statistic == "spread" else f"{name} {figure.statistic.upper()}"


def _empty(figure: FigureComparison) -> bool:
    """Whether both sides are surely zero, so that there is nothing to see (no request was shed in either)."""
    return figure.unit == "share" and figure.a == figure.b == 0.0


def _shower(unit: str) -> Callable[[float | None], str]:
    if unit == "s":
        return seconds
    if unit == "share":
        return percent
    return rate if unit == "/s" else number


def _signed(value: float | None, show: Callable[[float | None], str]) -> str:
    if value is None:
        return UNKNOWN
    return ("+" if value > 0 else "−" if value < 0 else "") + show(abs(value))


def _interval(ends: Ends | None, unit: str, show: Callable[[float | None], str]) -> str:
    """Both ends in the unit of the larger one: ``-3.8 to +11.5 ms``."""
    if ends is None or ends == (None, None):
        return UNKNOWN
    known = [abs(end) for end in ends if end is not None]
    if unit == "s" and max(known) < 0.9995:
        low, high = (_signed(None if end is None else 1e3 * end, number) if end is not None else "open" for end in ends)
        return f"{low} to {high} ms"
    low, high = (_signed(end, show) if end is not None else "open" for end in ends)
    return f"{low} to {high}"


def _side(side: Side) -> str:
    folders = ", ".join(side.folders) if len(side.folders) <= 3 else f"{side.folders[0]} and {len(side.folders) - 1} more"
    return f"{folders} ({', '.join(dict.fromkeys(side.candidates))}; {side.offered:,} requests)"


def _plain(console: Console) -> Callable[[str], str]:
    """Text without control characters, in ASCII where the console can show nothing else."""

    def plain(text: str) -> str:
        text = printable(text).replace(NO_BREAK, " ")
        if not console.options.ascii_only:
            return text
        for found, instead in PLAIN:
            text = text.replace(found, instead)
        return text.encode("ascii", "replace").decode("ascii")

    return plain
