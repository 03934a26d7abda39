"""One candidate on a terminal: how requests ended, latencies a row each, and what client and server say of themselves."""

from __future__ import annotations

from collections.abc import Iterator

from rich.padding import Padding
from rich.table import Table

from setpoint.record import Candidate, Phase, PhaseMeasures, RequestClass, Summary
from setpoint.report.client_words import client_line
from setpoint.report.format import UNKNOWN, count, interval_s, number, percent, rate, round_seconds, seconds
from setpoint.report.server_words import server_line
from setpoint.report.terminal_writer import Writer
from setpoint.report.verdicts import measures, only_predicted
from setpoint.report.words import metric_name, phase_name

PHASES = (Phase.SUSTAINED, Phase.BURST)
LEVELS = ("p50", "p90", "p95", "p99")
ROOMY_COLUMNS = 100
# Latencies in the order in which a request meets them, each with what is said of it from the send.
LATENCIES = (
    ("ttft", "ttft_s", "ttft_from_send_s"),
    ("itl", "itl_s", None),
    ("max_gap", "max_gap_s", None),
    ("tpot", "tpot_s", None),
    ("e2e", "e2e_s", "e2e_from_send_s"),
    ("queue_wait", "queue_wait_s", None),
    ("connecting", "connect_s", None),
    ("refusals", "refusal_s", None),
)


def render_one(writer: Writer, candidate: Candidate) -> None:
    """Print every figure of ``candidate``, phase by phase."""
    for index, phase in enumerate(PHASES):
        figures = measures(candidate, phase)
        if figures is None:
            continue
        if index:
            writer.console.print()
        predicted = ", predicted" if only_predicted(candidate) else ""
        length = f"{round_seconds(round(figures.duration_s, 1))}, " if figures.duration_s else ""
        offered = f"{length}{count(figures.offered)} requests offered{predicted}"
        writer.console.print(writer.text(f"{phase_name(phase)}   {offered}", "bold"))
        for line in _lines(figures):
            writer.console.print(Padding(writer.text(line), (0, 0, 0, 2)))
        table = _latencies(writer, figures)
        if table.row_count:
            writer.console.print()
            writer.console.print(table)
    if candidate.measured is None and candidate.predicted is None:
        writer.print("Nothing was measured.")
    lines = []
    if candidate.server:
        lines.append(f"Server: {server_line(candidate.server)}")
    if candidate.client:
        lines.append(f"Client: {client_line(candidate.client)}")
    if lines:
        writer.console.print()
    for line in lines:
        writer.print(line, "dim")


def _lines(figures: PhaseMeasures) -> Iterator[str]:
    """How requests ended, what came out, and what else is known."""
    yield ", ".join(f"{count(getattr(figures, str(each)))} {each}" for each in RequestClass)
    yield (
        f"goodput {rate(figures.goodput_rps)} ({percent(figures.goodput_fraction)} of offered), "
        f"{number(figures.output_tokens_per_s)} output tokens/s, {number(figures.prompt_tokens_per_s)} prompt tokens/s"
    )
    others = list(_others(figures))
    if others:
        yield ", ".join(others)


def _others(figures: PhaseMeasures) -> Iterator[str]:
    if figures.stalled_fraction is not None and figures.stall_limit_s is not None:
        yield f"{percent(figures.stalled_fraction)} of streams had a gap over {round_seconds(figures.stall_limit_s)}"
    if figures.prefix_hit_rate is not None:
        yield f"prefix hits {percent(figures.prefix_hit_rate)}"
    if figures.kv_usage_peak is not None:
        yield f"KV cache {percent(figures.kv_usage_peak)} at its peak"
    if figures.preemptions is not None:
        yield f"{count(figures.preemptions)} preemptions"
    if figures.acceptance_length is not None:
        yield f"acceptance length {number(figures.acceptance_length)}"
    if figures.amplification is not None:
        yield f"{number(figures.amplification)} sends for each request"
    if figures.output_tokens_per_usd is not None:
        yield f"{number(figures.output_tokens_per_usd)} output tokens per USD"


def _latencies(writer: Writer, figures: PhaseMeasures) -> Table:
    roomy = writer.console.width >= ROOMY_COLUMNS
    table = writer.table()
    table.padding = (0, 2 if roomy else 1, 0, 0)
    table.add_column("", no_wrap=True)
    headings = ("n", *(("mean",) if roomy else ()), "P50", "P90", "P95", "P99", "P99, 95 %", "largest")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for metric, field, from_send in LATENCIES:
        found: Summary | None = getattr(figures, field)
        if found is None or found.n == 0:
            continue
        cells = _cells(found, roomy=roomy)
        table.add_row(writer.text(metric_name(metric), "bold"), *map(writer.text, cells))
        other: Summary | None = getattr(figures, from_send) if from_send is not None else None
        if other is not None and (again := _cells(other, roomy=roomy)) != cells:
            table.add_row(writer.text("  from send", "dim"), *(writer.text(cell, "dim") for cell in again))
    return table


def _cells(found: Summary, *, roomy: bool) -> list[str]:
    levels = [getattr(found, level) for level in (("mean",) if roomy else ()) + LEVELS]
    interval = interval_s(found.p99_ci, gap="")
    return [count(found.n), *(seconds(level, gap="") for level in levels), interval, seconds(found.max, gap="") or UNKNOWN]
