"""The run folder, written at the end of every command that measures."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from setpoint.record import Report
from setpoint.report.files import write_run
from setpoint.report.html import render_html

HTML_FILE = "report.html"


def command_line() -> str:
    """What the user typed, as it can be typed again."""
    return shlex.join(["setpoint", *sys.argv[1:]])


def save_run(folder: Path, report: Report, requests: pa.Table, steps: pa.Table | None, info: dict[str, Any]) -> None:
    """``run.json``, the tables, ``report.json`` and ``report.html``."""
    write_run(folder, report, requests, steps, info)
    (folder / HTML_FILE).write_text(render_html(report, requests, steps), encoding="utf-8")
