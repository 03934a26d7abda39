"""How a command shows its result: on standard output, whoever reads it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from setpoint.record import Report


def show(report: Report, folder: Path | None, *, json_output: bool) -> None:
    """The report as a table, or as JSON; then where the page is."""
    from rich.console import Console

    from setpoint.loop.console import say
    from setpoint.report.terminal import render_terminal

    written(lambda: print(report.to_json()) if json_output else render_terminal(report, Console()))
    if folder is not None:
        say(f"report: {folder / 'report.html'}")


def written(write: Callable[[], object]) -> None:
    """Write to standard output. A reader that leaves early has seen enough; the verdict stands."""
    try:
        write()
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # Rich ends the process then, with the code for a missed SLO.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
