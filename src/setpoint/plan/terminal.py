"""A plan on a terminal: the recommendation, the ranking, and the answers."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from setpoint.plan.planner import Plan, Ranked, Standing
from setpoint.plan.report import spoken
from setpoint.plan.words import probability, spare, unsure, usd_per_hour
from setpoint.report.format import printable, seconds

MOST_ROWS = 16


def render_plan(plan: Plan, console: Console) -> None:
    """Print all of it."""
    words, style = _headline(plan)
    said = spoken(plan)
    console.print(Text(printable(plan.asked.requirement.name), style="bold"), Text(f"({words})", style=style))
    console.print(printable(said["recommendation"]), markup=False)
    for name in ("cheaper_but_unsure", "runs_as_it_is"):
        if said[name]:
            console.print(printable(said[name]), markup=False)
    if plan.ranked:
        console.print(_table(plan))
    _section(console, "Why this", said["why"])
    _section(console, "What each limit costs", said["limits"])
    _section(console, "Speculation", said["speculation"])
    _section(console, "If the load doubles", [said["if_load_doubles"]])
    _section(console, "What to measure next", [said["measure_next"]])


def _headline(plan: Plan) -> tuple[str, str]:
    """How the plan stands in a few words, and their style."""
    guess = plan.chosen is not None and plan.chosen.option.guess
    return {
        Standing.SURE: ("met", "green"),
        Standing.WITHIN_ERROR: (unsure(guess), "yellow"),
        Standing.INFEASIBLE: ("nothing meets it", "red"),
    }[plan.standing]


def _section(console: Console, title: str, sentences: list[str | None]) -> None:
    lines = [sentence for sentence in sentences if sentence]
    if lines:
        console.print()
        console.print(Text(title, style="bold"))
        for line in lines:
            console.print(f"- {printable(line)}", markup=False)


def _table(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("hardware", "serving"):
        table.add_column(name, overflow="fold")
    for name in ("$/h", "P95", "knee", "P(met)"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bound by", no_wrap=True)
    shown = list(plan.ranked[:MOST_ROWS])
    if plan.chosen is not None and plan.chosen not in shown:
        shown.append(plan.chosen)
    for ranked in shown:
        chosen = ranked is plan.chosen
        table.add_row(*_row(ranked), style="bold" if chosen else "" if ranked.holds else "dim")
    return table


def _row(ranked: Ranked) -> tuple[str, ...]:
    pool = ranked.topology.pool
    return (
        printable(f"{pool.replicas} x {pool.shape.name}"),
        printable(pool.serving.name),
        usd_per_hour(ranked.topology.usd_per_h).removesuffix("/h"),
        seconds(ranked.latency_s, " "),
        spare(ranked.headroom.knee_distance),
        probability(ranked.headroom.met_probability) + (" *" if ranked.headroom.within_error else ""),
        ranked.binding.bound,
    )
