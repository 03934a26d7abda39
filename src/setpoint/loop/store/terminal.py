"""Runs, one run, trends and calibrations on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console

from setpoint.hardware.calibrations import StepsCalibration
from setpoint.loop.store.entry import Entry
from setpoint.loop.store.listing import State, started
from setpoint.loop.store.trend import Trend, sparkline
from setpoint.report.format import percent, rate, seconds
from setpoint.report.terminal_writer import Writer

STATE_WORDS = {State.HERE: "", State.REPLACED: "written over", State.GONE: "folder gone"}


def render_runs(runs: Sequence[tuple[Entry, State]], total: int, console: Console) -> None:
    """One line a run, the latest first."""
    writer = Writer(console)
    if not runs:
        writer.print(
            "no run is known; every command that writes a run folder adds to the index, or: setpoint runs --reindex DIR"
        )
        return
    table = writer.table()
    for name in ("id", "started (UTC)", "kind", "requirement", "verdict"):
        table.add_column(name, no_wrap=name not in ("requirement", "verdict"), overflow="fold")
    table.add_column("goodput", justify="right")
    for name in ("folder", ""):
        table.add_column(name, overflow="fold")
    for entry, state in runs:
        good = percent(entry.figure("goodput_fraction"))
        words = [entry.id, started(entry), entry.kind, entry.name, entry.verdict, good, _short(entry.folder)]
        table.add_row(*(writer.text(f"{word} ") for word in words), writer.text(STATE_WORDS[state]))
    console.print(table)
    if total > len(runs):
        writer.print(f"and {total - len(runs)} more: --most {total}")


def render_run(entry: Entry, state: State, console: Console) -> None:
    """What the index knows of one run."""
    writer = Writer(console)
    table = writer.table()
    table.show_header = False
    table.add_column()
    table.add_column(overflow="fold")
    where = f"{entry.folder}{' (' + STATE_WORDS[state] + ')' if STATE_WORDS[state] else ''}"
    facts = {
        "run": entry.id,
        "folder": where,
        "kind": entry.kind,
        "requirement": f"{entry.name} ({entry.requirement})",
        "started": f"{started(entry)} UTC, {entry.duration_s:.0f} s",
        "verdict": entry.verdict,
        "candidate": entry.candidate or "none",
        "of": entry.system,
        "model": entry.model,
        "machine": entry.machine,
        "versions": entry.engine,
        "command": entry.command,
    }
    for phase, figures in entry.figures.items():
        latencies = [
            f"{name.upper()} {seconds(figures.get(f'{name}_p50_s'))} / {seconds(figures.get(f'{name}_p99_s'))}"
            for name in ("ttft", "itl", "e2e")
            if figures.get(f"{name}_p50_s") is not None
        ]
        good = f"goodput {percent(figures.get('goodput_fraction'))}, {rate(figures.get('goodput_rps'))}"
        facts[f"{phase}, P50 / P99"] = "; ".join([*latencies, good])
    for name, value in facts.items():
        table.add_row(writer.text(f"{name}  "), writer.text(value))
    console.print(table)


def render_trend(found: Trend, console: Console) -> None:
    """One line a run, the oldest first, then each figure as a row of bars."""
    writer = Writer(console)
    table = writer.table(f"{found.requirement}, {found.phase}")
    label = found.quantity.upper()
    for name in ("started (UTC)", "id", "candidate"):
        table.add_column(name, no_wrap=name != "candidate", overflow="fold")
    for name in (f"{label} P50", f"{label} P99", "goodput"):
        table.add_column(name, justify="right")
    for name in ("verdict", "changed"):
        table.add_column(name, overflow="fold")
    rows = zip(found.points, *(found.series(name) for name in ("p50", "p99", "goodput_fraction")), strict=True)
    for point, p50_s, p99_s, good in rows:
        entry = point.entry
        words = [started(entry), entry.id, entry.candidate, seconds(p50_s), seconds(p99_s), percent(good)]
        words += [entry.verdict, ", ".join(point.changed)]
        table.add_row(*(writer.text(f"{word} ") for word in words))
    console.print(table)
    if not writer.ascii and len(found.points) > 1:
        for name, figure in ((f"{label} P50", "p50"), (f"{label} P99", "p99"), ("goodput", "goodput_fraction")):
            bars = sparkline(found.series(figure))
            if bars:
                writer.print(f"{name:<10} {bars}")
    for sentence in found.warnings:
        writer.print(sentence, "yellow")


def render_calibrations(found: Iterable[StepsCalibration], console: Console) -> None:
    """One line a calibration of steps: what it is of, how sure, where it comes from, and whether it still holds."""
    writer = Writer(console)
    table = writer.table()
    for name in ("calibration", "error", "comes from", "holds"):
        table.add_column(name, overflow="fold")
    for each in found:
        origin = each.provenance.words() if each.provenance else each.note
        holds = each.stale() or "yes"
        table.add_row(*(writer.text(f"{word} ") for word in (each.name, percent(each.relative_error), origin, holds)))
    if not table.row_count:
        writer.print("no calibration of steps is known; tune a requirement, or: setpoint hardware calibrate")
        return
    console.print(table)


def _short(folder: str) -> str:
    """Relative to the working directory where that is shorter."""
    from os.path import relpath

    relative = relpath(folder)
    return relative if len(relative) < len(folder) else folder
