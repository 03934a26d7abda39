"""The result in the files that were asked for besides the run folder: JUnit XML, CSV, llm-d's report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from setpoint.loop.errors import BadInput
from setpoint.loop.flags import OutputFlags
from setpoint.loop.folder import require_writable_file
from setpoint.record import Report


def require_writable(flags: OutputFlags) -> None:
    """See that each file can be written before minutes are spent. Raises ``BadInput`` naming the option."""
    if flags.per_token and flags.output is None:
        raise BadInput("--per-token: tokens.parquet goes into the run folder; add --output DIR")
    for option, path in _files(flags):
        require_writable_file(option, path)


def deliver(report: Report, flags: OutputFlags) -> None:
    """Write the files. Raises ``BadInput`` if the machine refuses one."""
    writers: dict[str, Callable[[Report], str]] = {"junit": _junit, "csv": _csv, "llmd": _llmd}
    for option, path in _files(flags):
        try:
            path.write_text(writers[option](report), encoding="utf-8")
        except OSError as error:
            raise BadInput(f"--{option} {path}: cannot be written: {error.strerror or error}") from error


def _files(flags: OutputFlags) -> Iterator[tuple[str, Path]]:
    for option, path in (("junit", flags.junit), ("csv", flags.csv), ("llmd", flags.llmd)):
        if path is not None:
            yield option, path


def _junit(report: Report) -> str:
    from setpoint.report.exports.junit import junit_xml

    return junit_xml(report)


def _csv(report: Report) -> str:
    from setpoint.report.exports.summary_csv import summary_csv

    return summary_csv(report)


def _llmd(report: Report) -> str:
    from setpoint.report.exports.llmd import llmd_report

    return llmd_report(report)
