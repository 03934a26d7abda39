"""``setpoint measure`` as users run it, against a server of a known schedule: exit codes, claims, files, traces, compare."""

from __future__ import annotations

import csv
import json
import re
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest
from loop_world import OnlyModels, running, setpoint, wait_for_words

from setpoint.measure.mock import MockOptions, MockProcess
from setpoint.measure.mock.options import parse_behaviours
from setpoint.record import EXIT_BAD_INPUT, EXIT_INCONCLUSIVE, EXIT_INVALID, EXIT_MET, EXIT_MISSED, Report, Verdict
from setpoint.record.columns import REQUEST_COLUMNS, TOKEN_COLUMNS
from setpoint.report.files import read_run

TTFT_S, ITL_S = 0.03, 0.004
QUICK = ("--arrival", "constant", "--rate", "100", "--duration", "2", "--warmup", "0", "--output-tokens", "6")
# On a shared machine the client itself may be too late for a limit of 10 ms; what is decided here is far from any limit.
KNOWN = (EXIT_MET, EXIT_MISSED, EXIT_INCONCLUSIVE)


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    """A server that answers every request alike."""
    with MockProcess(MockOptions(ttft_s=TTFT_S, itl_s=ITL_S)) as server:
        yield server


@pytest.fixture(scope="module")
def refusing() -> Iterator[MockProcess]:
    """A server that refuses every fourth request and cuts every eighth answer."""
    behaviours = parse_behaviours("plain*3,http_503,plain*3,cut")
    with MockProcess(MockOptions(ttft_s=TTFT_S, itl_s=ITL_S, behaviours=behaviours, retry_after_s=0.05)) as server:
        yield server


def report_of(stdout: str) -> Report:
    return Report.model_validate(json.loads(stdout))


def test_claims_that_hold_end_with_0_and_every_file_that_was_asked_for(mock: MockProcess, tmp_path: Path) -> None:
    claims = ("--assert", "ttft_mean<500ms", "--assert", "goodput>=0.9", "--assert", "stalled_500ms<10%")
    files = ("--output", "run", "--per-token", "--junit", "ci/junit.xml", "--csv", "summary.csv", "--llmd", "llmd.json")
    done = setpoint("measure", mock.url, *QUICK, *claims, *files, cwd=tmp_path)
    assert done.returncode == EXIT_MET, done.stderr + done.stdout
    assert "The requirement is met" in done.stdout
    assert "Stalled over 500 ms" in done.stdout
    run = read_run(tmp_path / "run")
    assert run.requests.schema == REQUEST_COLUMNS
    assert [check.asserted for check in run.report.candidates[0].slo.checks] == list(claims[1::2])
    figures = run.report.candidates[0].measured
    assert figures is not None
    assert figures.sustained.offered == 200
    tokens = pq.read_table(tmp_path / "run" / "tokens.parquet")
    assert tokens.schema == TOKEN_COLUMNS
    assert tokens.num_rows == 6 * run.requests.num_rows
    cases = [case.get("name") for case in ElementTree.parse(tmp_path / "ci/junit.xml").iter("testcase")]
    assert cases == ["the run is valid", *claims[1::2]]
    with (tmp_path / "summary.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["ttft_p50_s"]) == pytest.approx(TTFT_S, abs=0.02)
    assert json.loads((tmp_path / "llmd.json").read_text())["version"] == "0.2.1"
    assert run.report.candidates[0].client is not None
    assert (tmp_path / "run" / "report.html").read_text().count("<section") >= 5


@pytest.mark.parametrize(
    ("claim", "code", "verdict"),
    [("ttft_p50<1ms", EXIT_MISSED, Verdict.MISSED), ("ttft_p99.9<10s", EXIT_INCONCLUSIVE, Verdict.INCONCLUSIVE)],
)
def test_claims_decide_the_exit_code(mock: MockProcess, tmp_path: Path, claim: str, code: int, verdict: Verdict) -> None:
    done = setpoint("measure", mock.url, *QUICK, "--assert", claim, "--json", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert [check.verdict for check in report_of(done.stdout).candidates[0].slo.checks] == [verdict]


def test_a_claim_takes_the_place_of_the_rule_that_nothing_may_fail(refusing: MockProcess, tmp_path: Path) -> None:
    assert setpoint("measure", refusing.url, *QUICK, cwd=tmp_path).returncode == EXIT_MISSED
    done = setpoint("measure", refusing.url, *QUICK, "--assert", "failed<50%", "--assert", "shed<60%", cwd=tmp_path)
    assert done.returncode == EXIT_MET, done.stdout
    assert re.search(r"150 ok, 0 late, 25 shed, 25 failed", done.stdout), done.stdout


def test_refused_requests_are_sent_again_on_request(refusing: MockProcess, tmp_path: Path) -> None:
    done = setpoint("measure", refusing.url, *QUICK, "--retries", "2", "--json", cwd=tmp_path)
    figures = report_of(done.stdout).candidates[0].measured
    assert figures is not None
    # The server refuses the same requests however often they come: two more attempts for each of 25 in 200.
    assert figures.sustained.shed == 25
    assert figures.sustained.amplification is not None
    assert figures.sustained.amplification > 1.15


def test_nothing_that_answers_is_an_invalid_run(tmp_path: Path) -> None:
    options = MockOptions(ttft_s=TTFT_S, itl_s=ITL_S, behaviours=parse_behaviours("silent"))
    with MockProcess(options) as silent:
        arguments = ("--rate", "20", "--requests", "10", "--warmup", "0", "--junit", "junit.xml")
        done = setpoint("measure", silent.url, *arguments, cwd=tmp_path)
    assert done.returncode == EXIT_INVALID, done.stdout
    assert "Invalid run" in done.stdout
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert int(root.get("errors") or 0) >= 1


def test_so_many_requests_are_sent_open_and_closed(mock: MockProcess, tmp_path: Path) -> None:
    for load in (("--rate", "80"), ("--arrival", "gamma", "--cv", "2", "--rate", "80"), ("--concurrency", "4")):
        arguments = (*load, "--requests", "57", "--warmup", "0.3", "--output-tokens", "4-8", "--json", "--seed", "3")
        done = setpoint("measure", mock.url, *arguments, cwd=tmp_path)
        assert done.returncode in KNOWN, done.stderr
        report = report_of(done.stdout)
        figures = report.candidates[0].measured
        assert figures is not None
        assert figures.sustained.offered == 57
        assert (report.load or {}).get("requests") == 57


def test_a_run_is_replayed_and_compared_with_itself(mock: MockProcess, tmp_path: Path) -> None:
    first = setpoint("measure", mock.url, *QUICK, "--output", "a", cwd=tmp_path)
    assert first.returncode in KNOWN, first.stderr
    arguments = ("--trace", "a/requests.parquet", "--warmup", "0", "--speed-up", "2", "--output", "b")
    again = setpoint("measure", mock.url, *arguments, cwd=tmp_path)
    assert again.returncode in KNOWN, again.stderr
    replayed = read_run(tmp_path / "b")
    assert replayed.requests.num_rows == 200
    assert (replayed.report.load or {})["trace"] == "requests.parquet"
    assert max(replayed.requests["intended_s"].to_pylist()) < 1.1
    compared = setpoint("compare", "a", "b", cwd=tmp_path)
    assert compared.returncode in (EXIT_MET, EXIT_MISSED), compared.stderr
    assert "TTFT" in compared.stdout
    as_json = setpoint("compare", "a", "a", "--json", cwd=tmp_path)
    assert as_json.returncode == EXIT_MET, as_json.stderr
    assert json.loads(as_json.stdout)["kind"] == "compare"
    refused = setpoint("compare", "a", cwd=tmp_path)
    assert refused.returncode == EXIT_BAD_INPUT
    assert "Traceback" not in refused.stderr


def test_a_goal_is_remarked_on_whether_or_not_it_was_reached(mock: MockProcess, tmp_path: Path) -> None:
    arguments = ("--rate", "100", "--warmup", "0", "--output-tokens", "4", "--duration", "3")
    done = setpoint("measure", mock.url, *arguments, "--until", "p99.9<1%", "--json", cwd=tmp_path)
    assert done.returncode in KNOWN, done.stderr
    report = report_of(done.stdout)
    assert any("p99.9<1% was not reached within 3 s" in reason for reason in report.validity.reasons), report.validity
    assert (report.load or {})["until"] == "p99.9<1%"


def test_live_figures_come_within_the_first_two_seconds(mock: MockProcess, tmp_path: Path) -> None:
    with running("measure", mock.url, "--rate", "20", "--duration", "30s", "--output-tokens", "6", cwd=tmp_path) as process:
        assert process.stderr is not None
        lines = wait_for_words(process.stderr, "TTFT p50")
    seen = re.search(r"(\d+)/\d+ s \|.*TTFT p50.*\| ITL p50.*\| good", lines[-1])
    assert seen is not None, lines
    assert int(seen[1]) <= 2


def test_several_processes_put_one_load_on_the_server(mock: MockProcess, tmp_path: Path) -> None:
    done = setpoint("measure", mock.url, *QUICK, "--workers", "2", "--json", cwd=tmp_path)
    assert done.returncode in (*KNOWN, EXIT_INVALID), done.stderr
    report = report_of(done.stdout)
    assert (report.load or {})["workers"] == 2
    figures = report.candidates[0].measured
    assert figures is not None
    assert figures.sustained.offered == 200


def test_an_endpoint_that_is_not_there_is_hinted_at(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), OnlyModels)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        done = setpoint("measure", url, "--requests", "3", "--rate", "20", "--warmup", "0", cwd=tmp_path)
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == EXIT_MISSED, done.stdout
    assert "this server has no completions endpoint; try --endpoint chat" in done.stderr
