"""A run as a folder: ``report.json``, ``requests.parquet`` and ``run.json``; where known, what the server said of itself.

``python -m setpoint.report.files --write-schema`` regenerates ``report_schema.json``, the JSON Schema of
``report.json``, from ``record.Report``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError, core_schema, to_json

from setpoint.record import SCHEMA_VERSION, Record, Report
from setpoint.record.columns import (
    DECISION_COLUMNS,
    LATER_REQUEST_COLUMNS,
    LATER_STEP_COLUMNS,
    REQUEST_COLUMNS,
    SERVER_COLUMNS,
    STEP_COLUMNS,
    TOKEN_COLUMNS,
)
from setpoint.report.machine import machine_facts

__all__ = ["Run", "RunFolderError", "machine_facts", "read_report", "read_run", "report_schema", "write_run"]

REPORT_FILE = "report.json"
REQUESTS_FILE = "requests.parquet"
STEPS_FILE = "steps.parquet"
SERVER_FILE = "server.parquet"
DECISIONS_FILE = "decisions.parquet"
TOKENS_FILE = "tokens.parquet"
RUN_FILE = "run.json"
MEASURED_FOLDER = "measured"
"""Of a tuning: a run folder for each measurement it made."""
EXPORTS_FOLDER = "exports"
"""Of a plan: what to run elsewhere."""
SCHEMA_FILE = Path(__file__).resolve().parent.parent / "report_schema.json"


class RunFolderError(Exception):
    """A run cannot be written to or read from its folder; the message names the file and the fix."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run's folder holds. ``steps`` and ``decisions`` are ``None`` where the engine was not ours, ``server`` without
    metrics."""

    report: Report
    requests: pa.Table
    steps: pa.Table | None
    run_info: dict[str, Any]
    server: pa.Table | None = None
    decisions: pa.Table | None = None


def write_run(
    folder: Path,
    report: Report,
    requests: pa.Table,
    steps: pa.Table | None,
    run_info: Mapping[str, Any],
    *,
    server: pa.Table | None = None,
    tokens: pa.Table | None = None,
    decisions: pa.Table | None = None,
) -> None:
    """Write a run, making the folder if need be and replacing an earlier run in it.

    Each file appears whole or not at all. ``report.json`` is taken away first and written last, so a folder that has
    one is complete. Tables are brought to the columns of ``record`` (``REQUEST_COLUMNS`` and so on); one that is
    ``None`` leaves no file. Raises ``RunFolderError`` for a folder that cannot be written, a table that lacks a column,
    or ``run_info`` that is not JSON.
    """
    tables = {
        REQUESTS_FILE: _conform(requests, REQUEST_COLUMNS, "requests"),
        STEPS_FILE: _conform(steps, STEP_COLUMNS, "steps") if steps is not None else None,
        SERVER_FILE: _conform(server, SERVER_COLUMNS, "server") if server is not None else None,
        DECISIONS_FILE: _conform(decisions, DECISION_COLUMNS, "decisions") if decisions is not None else None,
        TOKENS_FILE: _conform(tokens, TOKEN_COLUMNS, "tokens") if tokens is not None else None,
    }
    try:
        info = to_json(dict(run_info), indent=2)
    except PydanticSerializationError as error:
        raise RunFolderError(f"run_info cannot be written as JSON: {error}") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REPORT_FILE).unlink(missing_ok=True)
        for name, table in tables.items():
            _write_table(folder / name, table)
        _write_whole(folder / RUN_FILE, lambda path: path.write_bytes(info + b"\n"))
        text = report.to_json() + "\n"
        _write_whole(folder / REPORT_FILE, lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(
            f"cannot write the run to {folder}: {error.strerror or error}; choose another folder with --output"
        ) from error


def read_run(folder: Path) -> Run:
    """Read a run that ``write_run`` wrote. Raises ``RunFolderError`` naming the file that is missing or unreadable."""
    report = read_report(folder / REPORT_FILE)
    requests = _conform(_read_table(folder / REQUESTS_FILE), REQUEST_COLUMNS, REQUESTS_FILE)
    steps = _optional_table(folder / STEPS_FILE, STEP_COLUMNS)
    server = _optional_table(folder / SERVER_FILE, SERVER_COLUMNS)
    decisions = _optional_table(folder / DECISIONS_FILE, DECISION_COLUMNS)
    try:
        info = json.loads(_read_text(folder / RUN_FILE))
    except json.JSONDecodeError as error:
        raise RunFolderError(f"{folder / RUN_FILE} is not JSON: {error}") from error
    if not isinstance(info, dict):
        raise RunFolderError(f"{folder / RUN_FILE} must hold a JSON object, found {type(info).__name__}")
    return Run(report, requests, steps, info, server, decisions)


def read_report(path: Path) -> Report:
    """Read a ``report.json``. Raises ``RunFolderError`` if it is missing, not JSON, or not of this schema."""
    try:
        fields = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise RunFolderError(f"{path} is not JSON: {error}") from error
    version = fields.get("schema") if isinstance(fields, dict) else None
    if version != SCHEMA_VERSION:
        raise RunFolderError(f"{path} has schema {version!r}; this setpoint reads schema {SCHEMA_VERSION}")
    try:
        return Report.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunFolderError(f"{path}: {where or 'report'}: {first['msg']}") from error


class _WrittenSchema(GenerateJsonSchema):
    """Every field is required, since ``Report.to_json`` writes them all, ``null`` where unknown; the additions are not."""

    def field_is_required(
        self, field: core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField, total: bool
    ) -> bool:
        return True


def report_schema() -> str:
    """The JSON Schema (2020-12) of ``report.json`` as text."""
    schema = Report.model_json_schema(by_alias=True, mode="serialization", schema_generator=_WrittenSchema)
    parts = {"Report": schema, **schema["$defs"]}
    for record in Record.__subclasses__():
        part = parts.get(record.__name__)
        if part is not None and record.ADDED:
            part["required"] = [name for name in part["required"] if name not in record.ADDED]
    return json.dumps({"$schema": GenerateJsonSchema.schema_dialect, **schema}, indent=2) + "\n"


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside ``path`` and rename over it, so that a reader never sees half a file."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_table(path: Path, table: pa.Table | None) -> None:
    """Write ``table`` as Parquet; ``None`` takes the file of an earlier run away."""
    if table is None:
        path.unlink(missing_ok=True)
    else:
        _write_whole(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def _optional_table(path: Path, schema: pa.Schema) -> pa.Table | None:
    return _conform(_read_table(path), schema, path.name) if path.exists() else None


def _conform(table: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    """``table`` with exactly the columns of ``schema``, in its order and types; columns of later versions become null."""
    for later in (*LATER_REQUEST_COLUMNS, *LATER_STEP_COLUMNS):
        if later in schema.names and later not in table.column_names:
            field = schema.field(later)
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    missing = [column for column in schema.names if column not in table.column_names]
    surplus = [column for column in table.column_names if column not in schema.names]
    if missing or surplus:
        words = [f"lacks {', '.join(missing)}"] if missing else []
        words += [f"has unknown {', '.join(surplus)}"] if surplus else []
        raise RunFolderError(f"the table {name} {' and '.join(words)}; its columns are those of setpoint.record")
    try:
        return table.select(schema.names).cast(schema)
    except pa.ArrowException as error:
        raise RunFolderError(f"the table {name} has a column of another type: {error}") from error


def _read_table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except FileNotFoundError as error:
        raise RunFolderError(f"{path} is missing: {path.parent} is not the folder of a run") from error
    except (OSError, pa.ArrowException) as error:
        raise RunFolderError(f"{path} cannot be read as Parquet: {error}") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RunFolderError(f"{path} is missing: {path.parent} is not the folder of a finished run") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from error


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m setpoint.report.files", description="The JSON Schema of reports.")
    parser.add_argument("--write-schema", action="store_true", help=f"regenerate {SCHEMA_FILE.name} in the package")
    if parser.parse_args().write_schema:
        SCHEMA_FILE.write_text(report_schema(), encoding="utf-8")
    else:
        print(report_schema(), end="")


if __name__ == "__main__":
    _main()
