"""The run folder, written at the end of every command that measures, and what is told of how it came about."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from setpoint import __version__
from setpoint.loop.schedule import Schedule
from setpoint.record import Report
from setpoint.report.exports.tokens import tokens_table
from setpoint.report.files import RunFolderError, machine_facts, write_run

if TYPE_CHECKING:
    import pyarrow as pa

HTML_FILE = "report.html"
PACKAGES = ("openvino", "openvino-genai", "openvino-tokenizers", "numpy", "pyarrow", "uvicorn", "uvloop")
SECRETS = ("--api-key", "--header", "--power-url", "--metrics-url")
# Machine facts that are versions; they are told with the others.
VERSION_FACTS = ("setpoint", "python", "openvino")


def command_line() -> str:
    """What the user typed, as it can be typed again; what may be secret is left out."""
    words = list(sys.argv[1:])
    for place, word in enumerate(words):
        option, equals, _ = word.partition("=")
        if option in SECRETS:
            if equals:
                words[place] = f"{option}=..."
            elif place + 1 < len(words):
                words[place + 1] = "..."
    return shlex.join(["setpoint", *words])


def versions() -> dict[str, str]:
    """Of setpoint, Python and the libraries that a figure depends on."""
    found = {"setpoint": __version__, "python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def circumstances(started_unix_s: float | None = None) -> dict[str, Any]:
    """``report.json``'s ``machine``: what it ran on, the command, the versions; when, if it just ended."""
    facts = {key: value for key, value in machine_facts().items() if key not in VERSION_FACTS}
    facts |= {"command": command_line(), "versions": versions()}
    if started_unix_s is not None:
        started = datetime.fromtimestamp(started_unix_s, UTC).isoformat(timespec="milliseconds")
        facts |= {"started": started, "duration_s": round(time.time() - started_unix_s, 3)}
    return facts


def run_info(report: Report, *, seed: int, schedule: Schedule, started_unix_s: float) -> dict[str, Any]:
    """``run.json``: what was run, with what, when, on what."""
    return {
        "kind": report.kind,
        "command": command_line(),
        "seed": seed,
        "schedule": asdict(schedule),
        "started_unix_s": started_unix_s,
        "ended_unix_s": time.time(),
        "requirement": report.requirement,
        "configurations": {candidate.name: candidate.config for candidate in report.candidates},
        "chosen": report.chosen,
        "versions": versions(),
        "machine": report.machine,
    }


def plan_info(report: Report, seed: int, started_unix_s: float) -> dict[str, Any]:
    """``run.json`` of a plan: nothing was run, so it says with what and when alone."""
    return {
        "kind": "plan",
        "command": command_line(),
        "seed": seed,
        "started_unix_s": started_unix_s,
        "ended_unix_s": time.time(),
        "chosen": report.chosen,
        "versions": versions(),
    }


def save_run(
    folder: Path,
    report: Report,
    requests: pa.Table,
    steps: pa.Table | None,
    info: Mapping[str, Any],
    *,
    server: pa.Table | None = None,
    decisions: pa.Table | None = None,
    per_token: bool = False,
) -> None:
    """``run.json``, the tables, ``report.json`` and ``report.html``; ``tokens.parquet`` too; then the run is in the index.

    Raises ``RunFolderError``.
    """
    from setpoint.loop.console import say
    from setpoint.loop.store.register import register_quietly
    from setpoint.report.html import render_html

    tokens = tokens_table(requests) if per_token else None
    write_run(folder, report, requests, steps, info, server=server, tokens=tokens, decisions=decisions)
    try:
        (folder / HTML_FILE).write_text(render_html(report, requests, steps, server), encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{folder / HTML_FILE}: cannot be written: {error.strerror or error}") from error
    register_quietly(folder, say)
