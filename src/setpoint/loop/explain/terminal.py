"""An explanation as a person reads it in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from setpoint.loop.explain.explanation import Counterfactual, Explanation, Figures, Status, Story
from setpoint.loop.explain.words import SHORT
from setpoint.report.format import count, number, percent, seconds, share

MOST_TYPICAL = 7
LEAST_S = 5e-4
_SHOWN = ("gaps_over", "prompt_tokens", "waiting", "running")
_PLAIN = {
    "over_s": "over by",
    "ttft_s": "TTFT",
    "ttft_limit_s": "TTFT limit",
    "ttft_margin_s": "margin",
    "e2e_s": "E2E",
    "e2e_limit_s": "E2E limit",
    "e2e_margin_s": "margin",
    "itl_s": "longest step",
    "itl_limit_s": "its limit",
    "tpot_s": "TPOT",
    "max_gap_s": "longest gap",
    "gaps_over": "gaps over the limit",
    "left_s": "time left",
    "own_s": "own prompt",
}
_STATUS_STYLE = {Status.FIRED: "green", Status.IDLE: "yellow", Status.IMPOSSIBLE: "dim", Status.UNKNOWN: "dim"}
_STATUS_WORDS = {
    Status.FIRED: "fired",
    Status.IDLE: "could have",
    Status.IMPOSSIBLE: "could not",
    Status.UNKNOWN: "unknown",
}


def render_explanation(found: Explanation, console: Console) -> None:
    """The three answers, then what cannot be told."""
    classes = ", ".join(f"{value} {name}" for name, value in found.classes.items() if value)
    _line(console, f"{found.candidate}   {found.configuration}", "bold")
    _line(console, f"{', '.join(found.phases)}: {found.offered} requests offered: {classes}")
    _heading(console, "Why requests were shed or late")
    if not found.causes:
        _line(console, "Every request met every limit.")
    for cause in found.causes:
        _line(console, f"{count(cause.count):>6}  {percent(cause.share):>7}  {cause.outcome}: {cause.words}", indent=0)
        if cause.typical:
            worth = {
                name: v for name, v in cause.typical.items() if name in _SHOWN or (name.endswith("_s") and abs(v) >= LEAST_S)
            }
            shown = [_typical(*each) for each in worth.items()]
            _line(console, "typically " + ", ".join(shown[:MOST_TYPICAL]), "dim", indent=17)
        for example in cause.examples:
            _line(console, f"{example.request_id}: {example.words}", "dim", indent=17)
    _heading(console, "Whether each policy could have fired")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for each in found.policies:
        status = Text(_STATUS_WORDS[each.status], style=_STATUS_STYLE[each.status])
        table.add_row(each.name, status, f"{each.fired:,}" if each.fired else "", each.words)
    console.print(table)
    if found.without is not None:
        _without(found.without, console)
    if found.cannot:
        _heading(console, "What cannot be told")
        for words in found.cannot:
            _line(console, words)


def render_story(found: Story, console: Console) -> None:
    """What happened, in order of time, then what became of it."""
    _line(console, f"{found.request_id}   {found.outcome}   ({found.candidate})", "bold")
    for moment in found.moments:
        at = f"{moment.at_s:10.3f} s" if moment.at_s is not None else " " * 12
        _line(console, f"{at}  {moment.words}")
    _line(console, found.verdict, "bold")


def _without(found: Counterfactual, console: Console) -> None:
    _heading(console, "What the queue would have looked like without it")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    for title in ("waiting P50", "P99", "most", "TTFT P50", "P99", "E2E P99", "ok", "late", "shed", "unfinished", "goodput"):
        table.add_column(title, justify="right", no_wrap=True)
    for each in (found.measured, *found.replays):
        table.add_row(*_cells(each))
    console.print(table)
    for each in found.replays:
        _line(console, f"{each.name}: {each.words}", "dim")
    _line(console, f"How far to believe it: {found.trust.words}.")
    for words in found.assumptions:
        _line(console, words, "dim")


def _cells(each: Figures) -> list[str]:
    return [
        each.name,
        number(each.waiting_p50),
        number(each.waiting_p99),
        number(each.waiting_max),
        seconds(each.ttft_p50_s),
        seconds(each.ttft_p99_s),
        seconds(each.e2e_p99_s),
        count(each.ok),
        count(each.late),
        count(each.shed),
        count(each.unfinished),
        share(each.ok, each.offered),
    ]


def _typical(name: str, value: float) -> str:
    plain = SHORT.get(name.removesuffix("_s")) or _PLAIN.get(name) or name.removesuffix("_s").replace("_", " ")
    return f"{plain} {seconds(value)}" if name.endswith("_s") else f"{plain} {number(value)}"


def _heading(console: Console, words: str) -> None:
    console.print()
    _line(console, words, "bold")


def _line(console: Console, words: str, style: str = "", *, indent: int = 0) -> None:
    console.print(Padding(Text(words, style=style), (0, 0, 0, indent)))
