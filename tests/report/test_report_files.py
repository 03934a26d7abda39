"""A run written to a folder reads back the same, is never half there, and says clearly what is wrong with it."""

from __future__ import annotations

import json
import subprocess
import sys
from enum import StrEnum
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from request_rows import row, served, step_table, table

from setpoint.record import Report, SloReport, Validity, Verdict
from setpoint.record.columns import DECISION_COLUMNS, LATER_REQUEST_COLUMNS, REQUEST_COLUMNS, SERVER_COLUMNS
from setpoint.report.exports.tokens import tokens_table
from setpoint.report.files import (
    SCHEMA_FILE,
    RunFolderError,
    machine_facts,
    read_report,
    read_run,
    report_schema,
    write_run,
)

RUN_FILES = ["report.json", "requests.parquet", "run.json", "steps.parquet"]
STEPS = step_table([{"candidate": "c", "step": 1, "start_s": 0.0, "reason": "slack"}])


class Colour(StrEnum):
    RED = "red"


def report(why: str = "because") -> Report:
    slo = SloReport(verdict=Verdict.MET)
    return Report.model_validate(
        {
            "kind": "measure",
            "requirement": None,
            "machine": {"cpu": "x"},
            "candidates": [{"name": "c", "config": {}, "slo": slo}],
            "chosen": "c",
            "why": why,
            "validity": Validity(valid=True),
        }
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_reads_back_as_it_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    write_run(folder, report("weil — 95 %"), table(served(3)), STEPS, {"seed": 7, "path": Path("a"), "kind": Colour.RED})
    assert names(folder) == RUN_FILES
    run = read_run(folder)
    assert run.report == report("weil — 95 %")
    assert run.requests.equals(table(served(3)))
    assert run.steps is not None
    assert run.steps.equals(STEPS)
    assert run.run_info == {"seed": 7, "path": "a", "kind": "red"}
    assert json.loads((folder / "report.json").read_text())["schema"] == 1


def test_an_earlier_run_in_the_folder_is_replaced_whole(tmp_path: Path) -> None:
    write_run(tmp_path, report("old"), table(served(3)), STEPS, {})
    write_run(tmp_path, report("new"), table(served(1)), None, {})
    run = read_run(tmp_path)
    assert (run.report.why, run.requests.num_rows, run.steps) == ("new", 1, None)
    assert "steps.parquet" not in names(tmp_path)


def test_columns_are_brought_into_the_order_and_types_of_the_record(tmp_path: Path) -> None:
    requests = table(served(2)).select(REQUEST_COLUMNS.names[::-1])
    wide = requests.set_column(
        requests.schema.get_field_index("output_tokens"), "output_tokens", requests["output_tokens"].cast(pa.int64())
    )
    write_run(tmp_path, report(), wide, None, {})
    assert read_run(tmp_path).requests.schema == REQUEST_COLUMNS


def test_a_table_without_a_column_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    write_run(tmp_path, report("old"), table(served(1)), None, {})
    lacking = table([row()]).drop_columns(["token_times_s"]).append_column("extra", pa.array([1]))
    words = table([row()]).set_column(REQUEST_COLUMNS.get_field_index("status"), "status", pa.array(["teapot"]))
    for requests, info, message in (
        (lacking, {}, "requests lacks token_times_s and has unknown extra"),
        (words, {}, "another type"),
        (table([row()]), {"bad": object()}, "run_info cannot be written as JSON"),
    ):
        with pytest.raises(RunFolderError, match=message):
            write_run(tmp_path, report("new"), requests, None, info)
    assert read_report(tmp_path / "report.json").why == "old"


def test_a_folder_that_cannot_be_written_is_named_with_the_fix(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    for folder in (in_the_way, in_the_way / "below"):
        with pytest.raises(RunFolderError, match=r"cannot write the run to .*file.*--output"):
            write_run(folder, report(), table([row()]), None, {})


def test_a_write_that_fails_leaves_no_report_and_no_litter(tmp_path: Path) -> None:
    write_run(tmp_path, report("old"), table(served(1)), None, {})
    (tmp_path / "run.json").unlink()
    (tmp_path / "run.json").mkdir()
    with pytest.raises(RunFolderError, match="cannot write"):
        write_run(tmp_path, report("new"), table(served(1)), None, {})
    assert names(tmp_path) == ["requests.parquet", "run.json"]
    with pytest.raises(RunFolderError, match=r"report\.json is missing: .* not the folder of a finished run"):
        read_run(tmp_path)


def test_broken_files_are_named(tmp_path: Path) -> None:
    write_run(tmp_path, report(), table(served(1)), STEPS, {})
    good = (tmp_path / "report.json").read_text()
    for text, message in (
        ("{", "report.json is not JSON"),
        ("[]", "schema None; this setpoint reads schema 1"),
        (good.replace('"schema": 1', '"schema": 2'), "schema 2; this setpoint reads schema 1"),
        (good.replace('"kind": "measure"', '"kind": "guess"'), "report.json: kind: "),
        (good.replace('"why"', '"reason"'), "report.json: why: Field required"),
    ):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(RunFolderError, match=message):
            read_run(tmp_path)
    (tmp_path / "report.json").write_text(good)
    (tmp_path / "steps.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunFolderError, match=r"steps\.parquet cannot be read as Parquet"):
        read_run(tmp_path)
    (tmp_path / "steps.parquet").unlink()
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(RunFolderError, match=r"run\.json must hold a JSON object, found list"):
        read_run(tmp_path)
    (tmp_path / "requests.parquet").unlink()
    with pytest.raises(RunFolderError, match=r"requests\.parquet is missing"):
        read_run(tmp_path)


def test_the_schema_file_is_current() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == report_schema(), (
        "regenerate it with: python -m setpoint.report.files --write-schema"
    )


def test_the_schema_demands_what_every_report_has_and_allows_the_additions() -> None:
    schema = json.loads(report_schema())
    written = json.loads(report().to_json())
    assert set(schema["required"]) == set(written)
    assert set(schema["properties"]) == set(written) | Report.ADDED
    candidate = schema["$defs"]["Candidate"]
    assert set(candidate["required"]) == {"name", "config", "predicted", "measured", "slo"}
    assert {"client", "server"} <= set(candidate["properties"])
    assert schema["additionalProperties"] is False


def test_tables_of_earlier_versions_are_read_with_the_later_columns_unknown(tmp_path: Path) -> None:
    write_run(tmp_path, report(), table(served(2)), None, {})
    earlier = table(served(2)).drop_columns(list(LATER_REQUEST_COLUMNS))
    pq.write_table(earlier, tmp_path / "requests.parquet")
    read = read_run(tmp_path).requests
    assert read.schema == REQUEST_COLUMNS
    assert read["attempts"].null_count == 2


def test_what_the_server_said_and_single_tokens_are_kept_beside(tmp_path: Path) -> None:
    server = pa.Table.from_pylist([{"candidate": "c", "time_s": 1.0, "name": "running", "value": 2.0}], SERVER_COLUMNS)
    tokens = tokens_table(table(served(2)))
    operands = [[("limit_s", 0.5)]]
    known = {"kind": ["reject"], "time_s": [1.5], "code": ["ttft_would_be"], "operands": operands}
    columns = [pa.array(known.get(field.name, [None]), field.type) for field in DECISION_COLUMNS]
    decisions = pa.Table.from_arrays(columns, schema=DECISION_COLUMNS)
    write_run(tmp_path, report(), table(served(2)), None, {}, server=server, tokens=tokens, decisions=decisions)
    assert read_run(tmp_path).decisions.equals(decisions)  # type: ignore[union-attr]
    written = ["report.json", "requests.parquet", "run.json", "server.parquet", "tokens.parquet"]
    assert names(tmp_path) == ["decisions.parquet", *written]
    assert read_run(tmp_path).server.equals(server)  # type: ignore[union-attr]
    write_run(tmp_path, report(), table(served(2)), None, {})
    assert names(tmp_path) == ["report.json", "requests.parquet", "run.json"]


def test_the_schema_is_printed_on_request() -> None:
    command = [sys.executable, "-m", "setpoint.report.files"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert printed.stdout == report_schema()


def test_machine_facts_are_json_and_import_no_engine() -> None:
    facts = machine_facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["cpu"]
    assert facts["cores_logical"] >= facts["cores_usable"] >= 1
    assert facts["memory_bytes"] > 1 << 20
    code = "import sys; from setpoint.report.files import machine_facts; machine_facts(); print('openvino' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
