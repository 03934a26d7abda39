"""The figures of a phase from scraped series, and what they fill in of a phase's measures."""

from __future__ import annotations

import json

import pytest

from setpoint.measure.power import PowerReading, PowerSide
from setpoint.measure.server_account import ServerFigures, ServerSide, server_figures, with_server_figures
from setpoint.record import Phase, PhaseMeasures, Summary
from setpoint.record.columns import SERVER_COLUMNS


def side_of(**metrics: list[float | None]) -> ServerSide:
    """A scrape each second from 0 s on."""
    length = max(map(len, metrics.values()))
    return ServerSide(kind="vllm", metrics_times_s=[float(second) for second in range(length)], metrics=dict(metrics))


def test_gauges_of_a_phase() -> None:
    side = side_of(running=[0, 4, 8, 8, 0], waiting=[0, 0, 3, 1, 0], kv_usage=[0.1, 0.2, 0.9, 0.8, 0.1])
    summary = side.phase_summary(1.0, 4.0)
    assert summary["scrapes"] == 3
    assert (summary["running_peak"], summary["running_mean"]) == (8, 7)
    assert (summary["waiting_peak"], summary["waiting_mean"]) == (3, 1.75)
    assert summary["kv_usage_peak"] == 0.9


def test_what_was_never_told_is_unknown() -> None:
    summary = ServerSide().phase_summary(0.0, 1.0)
    assert {name for name, value in summary.items() if value is not None} == {"scrapes"}
    assert summary["scrapes"] == 0


def test_counters_of_a_phase() -> None:
    side = side_of(
        preemptions=[5, 5, 8, 9],
        rejected=[0, 2, 4, 4],
        output_tokens=[100, 200, 400, 400],
        queue_wait_sum_s=[1.0, 1.0, 3.0, 3.0],
        queue_waits=[10, 10, 14, 14],
    )
    summary = side.phase_summary(1.0, 3.0)
    assert (summary["preemptions"], summary["rejected"], summary["output_tokens"]) == (4, 2, 200)
    assert (summary["queue_waits"], summary["queue_wait_mean_s"]) == (4, 0.5)


def test_hit_rate_prefers_tokens_counted_once_a_request() -> None:
    cache: dict[str, list[float | None]] = {"prefix_queries": [0, 3000], "prefix_hits": [0, 2700]}
    assert side_of(**cache).prefix_hit_rate(0.0, 2.0) == 0.9
    counted: dict[str, list[float | None]] = {"prompt_tokens": [100, 1100], "cached_prompt_tokens": [0, 250]}
    assert side_of(**cache, **counted).prefix_hit_rate(0.0, 2.0) == 0.25
    assert side_of(prompt_tokens=[5, 5], cached_prompt_tokens=[1, 1]).prefix_hit_rate(0.0, 2.0) is None


def test_acceptance_length_counts_the_bonus_token() -> None:
    side = side_of(drafts=[0, 40], draft_tokens=[0, 160], accepted_tokens=[0, 60])
    summary = side.phase_summary(0.0, 2.0)
    assert summary["acceptance_length"] == pytest.approx(2.5)
    assert summary["draft_acceptance_rate"] == pytest.approx(60 / 160)
    # No draft in the phase: there is no length.
    assert side_of(drafts=[7, 7], accepted_tokens=[3, 3]).acceptance_length(0.0, 2.0) is None


def test_acceptance_length_as_the_server_tells_it() -> None:
    # SGLang tells 0 while nothing is speculated, and counts verify steps but not accepted tokens.
    side = side_of(acceptance_length=[0.0, 2.0, 3.0, 0.0], drafts=[0, 10, 20, 20])
    assert side.acceptance_length(0.0, 4.0) == 2.5


def test_energy_by_output_token() -> None:
    side = side_of(output_tokens=[0, 100, 200, 300])
    side.power = PowerSide()
    for time_s, watts in enumerate([100.0, 110.0, 120.0, 110.0]):
        side.power.add(float(time_s), PowerReading(watts, 2, "an exporter"))
    summary = side.phase_summary(0.0, 3.0)
    assert summary["energy_j"] == pytest.approx(105 + 115 + 115)
    assert summary["joules_per_output_token"] == pytest.approx(335 / 300)


def test_restart_is_told_once_a_scrape() -> None:
    side = side_of(output_tokens=[100, 200, 10, 30], prompt_tokens=[50, 60, 1, 2], running=[5, 1, 0, 0])
    side.note_restarts()
    assert side.restarts_s == [2.0]
    assert len(side.notes) == 1
    assert side.phase_summary(0.0, 4.0)["output_tokens"] == 120


def test_report_is_plain_json_by_phase() -> None:
    side = side_of(running=[1, 2, 3])
    report = side.report([(Phase.WARMUP, 0.0, 1.0), (Phase.SUSTAINED, 1.0, 3.0)])
    assert json.loads(json.dumps(report)) == report
    assert report["kind"] == "vllm"
    assert report["phases"]["sustained"]["running_peak"] == 3


def test_table_has_one_row_a_value() -> None:
    side = side_of(running=[1, None, 3])
    side.power = PowerSide([0.5], [100.0], "an exporter", 1)
    table = side.table("measured")
    assert table.schema == SERVER_COLUMNS
    assert table.to_pylist() == [
        {"candidate": "measured", "time_s": 0.0, "name": "running", "value": 1.0},
        {"candidate": "measured", "time_s": 2.0, "name": "running", "value": 3.0},
        {"candidate": "measured", "time_s": 0.5, "name": "power_w", "value": 100.0},
    ]
    assert ServerSide().table("measured").num_rows == 0


def measures(**known: object) -> PhaseMeasures:
    none = Summary(n=0)
    classes = dict.fromkeys(("offered", "ok", "late", "shed", "failed", "dropped", "unfinished"), 0)
    summaries = dict.fromkeys(("ttft_s", "itl_s", "max_gap_s", "tpot_s", "e2e_s"), none)
    rates = {"duration_s": 1.0, "goodput_rps": 0.0, "goodput_fraction": None}
    tokens = {"output_tokens_per_s": 0.0, "prompt_tokens_per_s": 0.0}
    return PhaseMeasures.model_validate({**classes, **summaries, **rates, **tokens, **known})


def test_figures_fill_what_the_clients_rows_leave_open() -> None:
    side = side_of(
        kv_usage=[0.5, 0.75, 0.5],
        preemptions=[0, 1, 3],
        queue_wait_sum_s=[0, 1, 3],
        queue_waits=[0, 4, 6],
        prefix_hits=[0, 1, 2],
        prefix_queries=[0, 2, 4],
    )
    figures = server_figures(side, 0.0, 3.0)
    assert figures == ServerFigures(0.75, 3, None, 0.5, Summary(n=6, mean=0.5))
    filled = with_server_figures(measures(), figures)
    assert (filled.kv_usage_peak, filled.preemptions, filled.prefix_hit_rate) == (0.75, 3, 0.5)
    assert filled.queue_wait_s == Summary(n=6, mean=0.5)
    known = with_server_figures(measures(prefix_hit_rate=0.125, preemptions=0), figures)
    assert (known.prefix_hit_rate, known.preemptions, known.kv_usage_peak) == (0.125, 0, 0.75)
