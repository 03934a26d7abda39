"""The result for other programs: each format read back by what is made for reading it."""

from __future__ import annotations

import csv
import io
import json
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from llmd_benchmark_report.schema_v0_2_1 import BenchmarkReportV021
from report_synthetic_run import HOSTILE_NAME, bare_report, hostile_report, synthetic_run
from request_rows import row, served, table

from setpoint.record import Phase, Report, SloCheck, Validity, Verdict
from setpoint.report.exports.junit import VALID, junit_xml
from setpoint.report.exports.llmd import llmd_report
from setpoint.report.exports.summary_csv import columns, summary_csv
from setpoint.report.exports.tokens import tokens_table


@pytest.fixture(scope="module")
def one() -> Report:
    """A single measurement with a burst, every check open to be changed."""
    return synthetic_run(names=("continuous-8",))[0]


def with_verdicts(report: Report, *verdicts: Verdict, valid: bool = True) -> Report:
    checks = [
        SloCheck(
            metric="ttft", statistic="p99", phase=Phase.SUSTAINED, limit=0.5, value=0.4, interval=(0.3, 0.6),
            verdict=verdict, asserted=f"ttft_p99<{index}ms",
        )
        for index, verdict in enumerate(verdicts)
    ]  # fmt: skip
    candidate = report.candidates[0]
    candidate = candidate.model_copy(update={"slo": candidate.slo.model_copy(update={"checks": checks})})
    validity = Validity(valid=valid, reasons=[] if valid else ["The client was late."])
    return report.model_copy(update={"candidates": [candidate], "validity": validity})


def kinds(report: Report) -> dict[str, str]:
    """What each test case says, by name."""
    cases = ElementTree.fromstring(junit_xml(report)).iter("testcase")
    return {case.get("name") or "": case[0].tag if len(case) else "passed" for case in cases}


def test_junit_has_a_case_a_check(one: Report) -> None:
    report = with_verdicts(one, Verdict.MET, Verdict.MISSED, Verdict.INCONCLUSIVE)
    assert kinds(report) == {
        VALID: "passed", "ttft_p99<0ms": "passed", "ttft_p99<1ms": "failure", "ttft_p99<2ms": "skipped",
    }  # fmt: skip
    root = ElementTree.fromstring(junit_xml(report))
    assert [root.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["4", "1", "0", "1"]
    failure = root.find(".//failure")
    assert failure is not None
    assert (
        failure.get("message") == "TTFT P99 was to be ≤ 500 ms in the sustained phase; it is 400 ms, 95 % interval 300–600 ms"
    )


def test_of_an_invalid_run_every_case_is_an_error(one: Report) -> None:
    found = kinds(with_verdicts(one, Verdict.MET, Verdict.MISSED, valid=False))
    assert set(found.values()) == {"error"}


def test_junit_survives_hostile_names() -> None:
    text = junit_xml(hostile_report()[0])
    suite = ElementTree.fromstring(text).find("testsuite")
    assert suite is not None
    assert HOSTILE_NAME[:20] in (suite.get("name") or "")
    assert "\x1b" not in text


def test_csv_has_a_row_a_phase_and_the_figures_of_the_report(one: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(summary_csv(one))))
    assert [each["phase"] for each in rows] == ["sustained", "burst"]
    figures = one.candidates[0].measured
    assert figures is not None
    assert int(rows[0]["offered"]) == figures.sustained.offered
    assert float(rows[1]["ttft_p99_s"]) == pytest.approx(figures.burst.ttft_s.p99)  # type: ignore[union-attr]
    assert rows[0]["acceptance_length"] == ""
    assert list(rows[0]) == columns()
    assert len(set(columns())) == len(columns())


def test_csv_of_nothing_known_is_a_table_all_the_same() -> None:
    assert len(list(csv.DictReader(io.StringIO(summary_csv(bare_report(1)[0]))))) == 2
    assert summary_csv(bare_report(0)[0]).count("\n") == 1


def test_a_row_for_each_token_with_the_gap_before_it() -> None:
    rows = [row(0.0, [0.1, 0.1, 0.4]), row(1.0, []), row(2.0, [2.5]), row(3.0, None or [], token_times_s=None)]
    found = tokens_table(table(rows))
    assert found["request_id"].to_pylist() == ["r0.0", "r0.0", "r0.0", "r2.0"]
    assert found["index"].to_pylist() == [0, 1, 2, 0]
    assert found["time_s"].to_pylist() == [0.1, 0.1, 0.4, 2.5]
    gaps = found["gap_s"].to_pylist()
    assert [gaps[0], gaps[3]] == [None, None]
    assert gaps[1:3] == pytest.approx([0.0, 0.3])


def test_the_rows_of_tokens_are_all_the_tokens_there_are() -> None:
    requests = table(served(50, tokens=7))
    found = tokens_table(requests)
    assert found.num_rows == 350
    assert np.nanmax(found["gap_s"].to_numpy()) == pytest.approx(0.02)


@pytest.mark.parametrize("report", [synthetic_run(names=("continuous-8",))[0], bare_report(1)[0], bare_report(0)[0]])
def test_llmd_reads_what_we_write(report: Report) -> None:
    assert read_llmd(report).version == "0.2.1"
    assert llmd_report(report) == llmd_report(report)


def read_llmd(report: Report) -> Any:
    """What llm-d's own models make of our document."""
    return BenchmarkReportV021.model_validate(json.loads(llmd_report(report)))


def test_llmd_has_our_figures_and_our_additions(one: Report) -> None:
    read = read_llmd(one)
    figures = one.candidates[0].measured
    assert figures is not None
    aggregate = read.results.request_performance.aggregate
    assert aggregate.latency.time_to_first_token.p95 == figures.sustained.ttft_s.p95
    assert aggregate.throughput.output_token_rate.mean == figures.sustained.output_tokens_per_s
    assert aggregate.requests.failures == figures.sustained.failed + figures.sustained.shed
    assert read.scenario.load.standardized.rate_qps == 2.2
    ours = read.results.observability.model_extra["setpoint"]
    assert ours["phases"]["burst"]["offered"] == figures.burst.offered  # type: ignore[union-attr]
    assert [check["metric"] for check in ours["slo"]["checks"]] == ["ttft", "itl", "ttft", "goodput_fraction"]


def test_llmd_of_a_latency_that_was_cut_off_has_no_entry(one: Report) -> None:
    candidate = one.candidates[0]
    assert candidate.measured is not None
    cut = candidate.measured.sustained.model_copy(
        update={"e2e_s": candidate.measured.sustained.e2e_s.model_copy(update={"mean": None})}
    )
    changed = candidate.model_copy(update={"measured": candidate.measured.model_copy(update={"sustained": cut})})
    read = read_llmd(one.model_copy(update={"candidates": [changed]}))
    assert read.results.request_performance.aggregate.latency.request_latency is None
