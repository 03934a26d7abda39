"""What is handed over and shown: the table, the client's account and its verdict, the live line, rough percentiles."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure_helpers import even_plan, run_against_mock
from rich.console import Console

from setpoint.measure.client_account import whole_warnings
from setpoint.measure.event_loop import LagMonitor
from setpoint.measure.histogram import LogHistogram
from setpoint.measure.options import LoadOptions
from setpoint.measure.outcome import RequestOutcome
from setpoint.measure.progress import ProgressLine, words
from setpoint.measure.recording import requests_table
from setpoint.measure.running import Progress, RunningFigures
from setpoint.measure.self_check import ClientCheck, client_check, judge_client
from setpoint.measure.sse import StreamReader
from setpoint.record import Phase, RequestClass
from setpoint.record.columns import REQUEST_COLUMNS
from setpoint.requirement import LatencyMetric, LatencySlo, Slos


def outcome(index: int, **more: object) -> RequestOutcome:
    row = RequestOutcome(
        index=index,
        request_id=f"r-{index}",
        phase=Phase.SUSTAINED,
        intended_s=float(index),
        dispatched_s=index + 0.001,
        sent_s=index + 0.001,
        ended_s=index + 1.0,
        request_class=RequestClass.OK,
        status=200,
        streaming=True,
        prompt_tokens=3,
        output_tokens=3,
        token_times_s=np.array([index + 0.5, index + 0.5, index + 0.9]),
        completed=True,
    )
    for name, value in more.items():
        setattr(row, name, value)
    return row


def test_table_has_the_columns_of_the_record_in_order_of_intent() -> None:
    unsent = outcome(1, request_class=RequestClass.DROPPED, sent_s=None, token_times_s=np.empty(0), completed=False)
    table = requests_table([outcome(2), unsent, outcome(0)], "static")
    assert table.schema == REQUEST_COLUMNS
    assert table["request_id"].to_pylist() == ["r-0", "r-1", "r-2"]
    assert table["request_class"].to_pylist() == ["ok", "dropped", "ok"]
    assert set(table["candidate"].to_pylist()) == {"static"}
    first, second, _ = table.to_pylist()
    assert first["token_times_s"] == [0.5, 0.5, 0.9]
    assert (first["ttft_s"], first["e2e_s"], first["tpot_s"], first["max_gap_s"]) == pytest.approx((0.5, 0.9, 0.2, 0.4))
    assert second["token_times_s"] == []
    assert [second[name] for name in ("ttft_s", "e2e_s", "sent_s", "error")] == [None] * 4


def test_empty_table() -> None:
    assert requests_table([], "static").schema == REQUEST_COLUMNS


def test_failed_stream_keeps_what_was_seen_but_has_no_e2e() -> None:
    row = outcome(0, completed=False, request_class=RequestClass.FAILED)
    assert row.ttft_s == 0.5
    assert row.max_gap_s == pytest.approx(0.4)
    assert (row.e2e_s, row.tpot_s) == (None, None)


def check(rows: list[RequestOutcome], lag: LagMonitor | None = None) -> ClientCheck:
    return client_check(
        rows,
        lag or LagMonitor(),
        cpu_s=0.5,
        cpu_share=0.1,
        machine_cpu_share=0.5,
        connections_opened=1,
        in_flight_peak=1,
        held_back=0,
    )


def test_lag_and_hold_are_told_apart() -> None:
    rows = [outcome(index, dispatched_s=index + 0.04, sent_s=index + 0.05) for index in range(20)]
    account = check(rows)
    assert account.send_lag_p99_s == pytest.approx(0.04)
    assert account.hold_p99_s == pytest.approx(0.01)
    assert account.tokens_per_cpu_s == 120


def test_unsent_requests_spoil_the_run_unless_a_limit_was_asked_for() -> None:
    rows = [outcome(index) for index in range(9)] + [outcome(9, request_class=RequestClass.DROPPED)]
    verdict = judge_client(check(rows), rows, Slos())
    assert verdict.reasons == ["The client did not send 1 of 10 requests before the end of the run."]
    assert judge_client(check(rows), rows, Slos(), limited=True).valid


PROGRESS = Progress(
    phase=Phase.BURST,
    elapsed_s=3.0,
    total_s=10.0,
    offered=12,
    sent=10,
    done=6,
    in_flight=4,
    waiting=2,
    shed=1,
    failed=0,
    ttft_p50_s=0.081,
    ttft_p95_s=12.5,
    itl_p50_s=None,
    itl_p95_s=None,
    goodput_fraction=0.5,
    output_tokens_per_s=431.0,
)


def test_words_of_progress() -> None:
    assert words(PROGRESS) == (
        "burst 3/10 s | sent 10 done 6 running 4 | waiting 2 | shed 1 | TTFT p50 81 ms p95 12.5 s | goodput 50% | 431 tok/s"
    )
    assert words(PROGRESS, short=True) == "burst 3/10 s | TTFT p50 81 ms | goodput 50% | waiting 2 | shed 1 | 431 tok/s"


@pytest.mark.parametrize("width", [80, 100, 200])
def test_all_live_figures_are_on_the_line_of_a_terminal(width: int) -> None:
    file = io.StringIO()
    progress = replace(PROGRESS, phase=Phase.SUSTAINED, elapsed_s=116.0, total_s=120.0, sent=4000, done=3990, shed=0, waiting=0)
    ProgressLine(Console(file=file, force_terminal=True, width=width))(replace(progress, itl_p50_s=0.02, itl_p95_s=0.021))
    line = file.getvalue().removeprefix("\r\x1b[2K")
    assert len(line) < width
    assert "TTFT p50 81 ms" in line
    assert "ITL p50 20 ms" in line
    assert "goodput 50%" in line
    assert ("█" in line) == ("p95" in line) == (width == 200)


def test_line_is_redrawn_on_a_terminal_and_left_standing_at_the_end() -> None:
    file = io.StringIO()
    line = ProgressLine(Console(file=file, force_terminal=True, width=160), label="static")
    line(PROGRESS)
    line(replace(PROGRESS, finished=True))
    shown = file.getvalue().split("\r\x1b[2K")[1:]
    assert len(shown) == 2
    assert all(text.startswith("static █") and len(text.rstrip("\n")) < 160 for text in shown)
    assert shown[1].endswith("\n")


def test_plain_lines_are_rare() -> None:
    file = io.StringIO()
    line = ProgressLine(Console(file=file, force_terminal=False))
    for _ in range(10):
        line(PROGRESS)
    line(replace(PROGRESS, finished=True))
    first, last = file.getvalue().splitlines()
    assert first.startswith("burst 3/10 s")
    assert last.startswith("done 3/10 s")


def test_quiet_line_shows_nothing() -> None:
    file = io.StringIO()
    ProgressLine(Console(file=file, force_terminal=True), quiet=True)(replace(PROGRESS, finished=True))
    assert file.getvalue() == ""


@given(st.lists(st.floats(1e-4, 1e3), min_size=1, max_size=60), st.sampled_from([50.0, 95.0, 99.0]))
def test_rough_percentile_is_within_two_percent(values: list[float], percent: float) -> None:
    one_by_one, at_once = LogHistogram(), LogHistogram()
    for value in values:
        one_by_one.add(value)
    at_once.add_many(np.array(values))
    exact = float(np.percentile(values, percent, method="inverted_cdf"))
    for histogram in (one_by_one, at_once):
        assert histogram.percentile(percent) == pytest.approx(exact, rel=0.021)
        assert histogram.max_s == max(values)
    assert LogHistogram().percentile(percent) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_in_flight", 0),
        ("connections_max", 0),
        ("drain_s", -1.0),
        ("request_timeout_s", 0.0),
        ("run_id", "a b"),
        ("extra_body", {"prompt": "x"}),
    ],
)
def test_bad_options_are_named(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        LoadOptions(**{field: value})  # type: ignore[arg-type]


def test_account_of_a_real_run() -> None:
    result, _ = run_against_mock(even_plan(10))
    client = result.client
    assert client.connections_opened >= 1
    assert client.in_flight_peak >= 1
    assert client.cpu_s > 0
    assert client.send_lag_p50_s is not None
    assert client.send_lag_p50_s >= 0
    assert client.loop_lag_p50_s is not None
    assert result.requests("x").num_rows == 10
    assert result.duration_s >= 0.1


def test_live_goodput_counts_streams_under_way_by_their_beginning() -> None:
    limits = (LatencySlo(metric=LatencyMetric.TTFT, percentile=95, limit_s=0.5),)
    figures = RunningFigures(Slos(latency=limits))
    figures.start_phase(Phase.SUSTAINED)
    assert figures.goodput_fraction is None
    readers = [StreamReader() for _ in range(4)]
    for reader, ttft_s in zip(readers, (0.1, 0.2, 0.3, 0.9), strict=True):
        reader.event_times_s.append(1.0 + ttft_s)
        figures.take_tokens(reader, 0, Phase.SUSTAINED, 1.0)
    assert figures.goodput_fraction == 0.75
    failed = outcome(0, request_class=RequestClass.FAILED)
    figures.take_outcome(failed, 1, readers[0])
    assert figures.goodput_fraction == 0.5
    figures.take_outcome(outcome(1, request_class=RequestClass.SHED), 0)
    assert figures.goodput_fraction == 0.4
    figures.start_phase(Phase.BURST)
    figures.take_outcome(failed, 1, readers[1])
    assert figures.goodput_fraction is None
    assert (figures.samples.judged, figures.samples.good) == (0, 0)


def test_live_gaps_are_those_within_each_stream() -> None:
    figures = RunningFigures(Slos())
    figures.start_phase(Phase.SUSTAINED)
    one, other = StreamReader(), StreamReader()
    one.event_times_s.extend([1.0, 1.1])
    figures.take_tokens(one, 0, Phase.SUSTAINED, 0.9)
    other.event_times_s.extend([5.0, 5.0])
    figures.take_tokens(other, 0, Phase.SUSTAINED, 4.9)
    one.event_times_s.append(1.4)
    figures.take_tokens(one, 2, Phase.SUSTAINED, 0.9)
    assert (figures.ttft_s.n, figures.itl_s.n, figures.tokens) == (2, 3, 5)
    assert figures.itl_s.max_s == pytest.approx(0.3)
    assert figures.itl_s.percentile(50) == pytest.approx(0.1, rel=0.03)


def test_half_a_character_of_a_server_is_written_as_a_question_mark() -> None:
    (row,) = requests_table([outcome(0, error="bad \ud83d", finish_reason="\ude00")], "c").to_pylist()
    assert (row["error"], row["finish_reason"]) == ("bad ?", "?")


def test_streams_that_come_in_one_piece_are_told() -> None:
    whole = [outcome(at, token_times_s=np.full(3, at + 0.5)) for at in range(2)]
    (said,) = whole_warnings([*whole, outcome(2)])
    assert said.startswith("2 of 3 streams came in one piece, so ITL, TPOT and stalls say nothing of them")
    assert whole_warnings([outcome(0), outcome(1, token_times_s=np.full(2, 1.5))]) == []
