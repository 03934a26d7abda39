"""The loop of a tuning report in a terminal: what it did and learned in each turn, and what was predicted of the chosen one."""

from __future__ import annotations

from typing import Any

from rich.padding import Padding
from rich.table import Table

from setpoint.report.terminal_writer import Writer
from setpoint.report.tuning_words import comparison_rows, comparison_words, iteration_rows, summary_words


def render_tuning(writer: Writer, tuning: dict[str, Any]) -> None:
    """Print the iterations and the table of predicted and measured figures."""
    if tuning.get("mode") == "loop":
        writer.print("The loop", "bold")
        for row in iteration_rows(tuning):
            writer.console.print(writer.text(f"{row.number}. {row.title}", "bold"))
            for words in (row.why, row.result, row.learned):
                if words:
                    writer.console.print(Padding(writer.text(words), (0, 0, 0, 3)))
        writer.print(summary_words(tuning))
        writer.console.print()
    if comparison_rows(tuning):
        writer.console.print(_comparison(writer, tuning))
        writer.print(comparison_words(tuning), "dim")
        writer.console.print()


def _comparison(writer: Writer, tuning: dict[str, Any]) -> Table:
    table = writer.table(f"Predicted and measured: {(tuning.get('comparison') or {}).get('candidate')}")
    table.padding = (0, 1, 0, 0)
    for heading in ("figure", "phase"):
        table.add_column(heading, no_wrap=True)
    for heading in ("predicted", "measured", "off by", "stated"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("agrees", no_wrap=True)
    for row in comparison_rows(tuning):
        cells = (row.name, row.phase.lower(), row.predicted, row.measured, row.error, row.stated, row.agrees)
        table.add_row(*(writer.text(cell) for cell in cells))
    return table
