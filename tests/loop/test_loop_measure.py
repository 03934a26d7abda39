"""``setpoint measure`` on servers that are not ours: a mock whose every answer is known."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from loop_world import mock_in_thread, requirement_file, running, setpoint, wait_for_words

from setpoint.record import EXIT_BAD_INPUT, EXIT_INVALID, EXIT_MET, EXIT_MISSED, Report
from setpoint.record.columns import REQUEST_COLUMNS
from setpoint.report.files import read_run

SHORT = ("--rate", "30/s", "--duration", "1s", "--warmup", "0", "--output-tokens", "6")
STRICT = """
name: strict
profile:
  prompt_tokens: 16
  output_tokens: 6
  arrival: {process: constant, rate: 30/s}
slo:
  ttft: {p50: 1ms}
"""


def test_a_foreign_server_is_measured_into_a_run_folder(tmp_path: Path) -> None:
    with mock_in_thread() as mock:
        done = setpoint("measure", mock.url, *SHORT, "--output", "runs/a", cwd=tmp_path)
    assert done.returncode == EXIT_MET, done.stderr
    assert "mock-model" in done.stderr
    assert "prompt lengths are estimates" in done.stderr
    run = read_run(tmp_path / "runs" / "a")
    assert run.steps is None
    assert (tmp_path / "runs" / "a" / "report.html").stat().st_size > 10_000
    assert pq.read_schema(tmp_path / "runs" / "a" / "requests.parquet").equals(REQUEST_COLUMNS)
    measured = run.report.candidates[0].measured
    assert measured is not None
    assert measured.sustained.offered == measured.sustained.ok == len(mock.seen) == run.requests.num_rows
    assert run.report.kind == "measure"
    for told in (run.report.machine, run.run_info):
        assert told["command"].startswith(f"setpoint measure {mock.url} --rate 30/s")
        assert told["versions"]["setpoint"]
    assert (run.run_info["seed"], run.run_info["machine"]) == (0, run.report.machine)
    assert run.run_info["schedule"]["sustained_s"] == 1.0


def test_the_planned_length_is_sent_under_the_name_that_was_asked_for(tmp_path: Path) -> None:
    with mock_in_thread() as mock:
        done = setpoint("measure", mock.url, *SHORT, "--max-completion-tokens", cwd=tmp_path)
    assert done.returncode == EXIT_MET, done.stderr
    assert {(seen.body.get("max_tokens"), seen.body.get("max_completion_tokens")) for seen in mock.seen} == {(None, 6)}


def test_json_is_all_there_is_on_standard_output_and_a_key_is_in_no_file(tmp_path: Path) -> None:
    with mock_in_thread() as mock:
        mock.api_key = "secret-key"
        refused = setpoint("measure", mock.url, *SHORT, cwd=tmp_path)
        arguments = ("measure", mock.url, *SHORT, "--json", "--api-key", "secret-key", "--output", "run")
        done = setpoint(*arguments, cwd=tmp_path)
    assert refused.returncode == EXIT_BAD_INPUT
    assert refused.stderr.splitlines()[-1].endswith("a valid key is needed; pass it with --api-key.")
    assert done.returncode == EXIT_MET, done.stderr
    assert Report.model_validate(json.loads(done.stdout)).kind == "measure"
    for file in (tmp_path / "run").iterdir():
        assert b"secret-key" not in file.read_bytes()


def test_the_requirement_of_a_url_decides_the_exit_code_and_says_what_would_have_to_give(tmp_path: Path) -> None:
    requirement_file(tmp_path, STRICT)
    with mock_in_thread() as mock:
        arguments = ("--requirement", "requirement.yaml", "--duration", "2", "--warmup", "0", "--json")
        done = setpoint("measure", mock.url, *arguments, cwd=tmp_path)
    assert done.returncode == EXIT_MISSED, done.stderr
    report = Report.model_validate(json.loads(done.stdout))
    assert report.chosen is None
    assert "the limit would have to rise from 1.00 ms to at least" in report.why


def test_a_reader_that_leaves_early_changes_no_verdict(tmp_path: Path) -> None:
    with mock_in_thread() as mock, running("measure", mock.url, *SHORT, cwd=tmp_path) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        words = process.stderr.read()
        assert process.wait(60) == EXIT_MET, words
    assert "Traceback" not in words


def test_requests_longer_than_the_model_are_refused_before_any_is_sent(tmp_path: Path) -> None:
    with mock_in_thread() as mock:
        done = setpoint("measure", mock.url, "--prompt-tokens", "2048", cwd=tmp_path)
        assert mock.seen == []
    assert done.returncode == EXIT_BAD_INPUT
    assert "a request of 2112 tokens" in done.stderr
    assert "at most 2048" in done.stderr


def test_a_server_that_dies_meanwhile_spoils_the_run_and_not_the_report(tmp_path: Path) -> None:
    with ExitStack() as life:
        mock = life.enter_context(mock_in_thread())
        with running("measure", mock.url, *SHORT, "--duration", "3s", "--json", cwd=tmp_path) as process:
            assert process.stderr is not None
            wait_for_words(process.stderr, "sustained 0/3 s")
            life.close()
            out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert process.returncode in (EXIT_MISSED, EXIT_INVALID), err
    measured = Report.model_validate(json.loads(out)).candidates[0].measured
    assert measured is not None
    assert measured.sustained.failed > 0


@pytest.mark.parametrize(("stop", "workers"), [("SIGINT", "1"), ("SIGTERM", "1"), ("SIGINT", "2")])
def test_an_interrupt_keeps_what_was_measured_and_is_130(tmp_path: Path, stop: str, workers: str) -> None:
    arguments = (*SHORT, "--duration", "60s", "--workers", workers, "--json", "--output", "run")
    with mock_in_thread() as mock, running("measure", mock.url, *arguments, cwd=tmp_path) as process:
        assert process.stderr is not None
        wait_for_words(process.stderr, "TTFT p50")
        process.send_signal(getattr(signal, stop))
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "stopped"
    assert "Traceback" not in err
    report = Report.model_validate(json.loads(out))
    assert read_run(tmp_path / "run").report == report
    assert not report.validity.valid
    assert report.validity.reasons[0].startswith("The run was stopped after ")
    assert (report.load or {})["interrupted"] is True
    measured = report.candidates[0].measured
    assert measured is not None
    assert measured.sustained.duration_s < 60.0
    assert 0 < measured.sustained.ok <= measured.sustained.offered < 1800


@pytest.mark.parametrize("stop", ["SIGINT", "SIGTERM"])
def test_an_interrupt_before_anything_is_to_be_judged_is_one_line_and_130(tmp_path: Path, stop: str) -> None:
    with (
        mock_in_thread() as mock,
        running("measure", mock.url, *SHORT, "--warmup", "60s", "--json", cwd=tmp_path) as process,
    ):
        assert process.stderr is not None
        wait_for_words(process.stderr, "warmup 0/")
        process.send_signal(getattr(signal, stop))
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "stopped"
    assert "Traceback" not in err
