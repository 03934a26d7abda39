"""Figures of a phase from small request tables whose answers can be worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from request_rows import row, served, step_table, table

from setpoint.record import Phase, PhaseMeasures, RequestClass
from setpoint.report.figures import PhaseSpan, classify_requests, classify_run, phase_measures
from setpoint.requirement import Arrival, Burst, ConstantTokens, LatencyMetric, LatencySlo, Price, Requirement, Slos
from setpoint.requirement import RequestProfile as Profile

SPAN = PhaseSpan(0.0, 10.0)
TTFT_200 = LatencySlo(metric=LatencyMetric.TTFT, percentile=95, limit_s=0.2)


def measured(rows: list[dict[str, Any]], slos: Slos | None = None, **options: Any) -> PhaseMeasures:
    return phase_measures(table(rows), Phase.SUSTAINED, options.pop("span", SPAN), slos, **options)


def classes(rows: list[dict[str, Any]], *limits: LatencySlo) -> list[str]:
    found: list[str] = classify_requests(table(rows), Slos(latency=limits))["request_class"].to_pylist()
    return found


def limit(metric: LatencyMetric, limit_s: float, percentile: float = 95) -> LatencySlo:
    return LatencySlo(metric=metric, percentile=percentile, limit_s=limit_s)


def test_latency_counts_from_the_intended_send() -> None:
    rows = [row(float(k), [k + 0.5, k + 0.7, k + 0.9], sent_s=k + 0.4) for k in range(4)]
    figures = measured(rows)
    assert figures.ttft_s.p50 == pytest.approx(0.5)
    assert figures.e2e_s.max == pytest.approx(0.9)
    assert figures.tpot_s.mean == pytest.approx(0.2)


def test_itl_is_over_all_gaps_and_a_chunk_is_one_gap_and_zeros() -> None:
    rows = [row(0.0, [1.0, 1.1, 1.1, 1.1]), row(1.0, [2.0, 2.5])]
    figures = measured(rows)
    assert figures.itl_s.n == 4
    assert figures.itl_s.max == pytest.approx(0.5)
    assert figures.itl_s.p50 == 0.0
    assert figures.itl_s.mean == pytest.approx(0.15)
    assert figures.max_gap_s.n == 2
    assert figures.max_gap_s.p50 == pytest.approx(0.1)


def test_a_freeze_in_few_streams_is_seen_in_itl_and_stall() -> None:
    rows = [
        row(float(k), [k + 0.1 + 0.02 * j + (0.5 if k % 10 == 0 and j >= 3 else 0.0) for j in range(6)]) for k in range(200)
    ]
    figures = measured(rows, span=PhaseSpan(0.0, 200.0))
    assert figures.itl_s.p99 == pytest.approx(0.52)
    assert figures.max_gap_s.p95 == pytest.approx(0.52)
    assert figures.tpot_s.p50 == pytest.approx(0.02)


def test_ok_needs_every_per_request_limit() -> None:
    rows = [row(0.0, [0.1, 0.2, 0.3]), row(1.0, [1.3, 1.4, 1.5]), row(2.0, [2.1, 2.2, 3.9])]
    assert classes(rows, TTFT_200) == ["ok", "late", "ok"]
    assert classes(rows, limit(LatencyMetric.TPOT, 0.5)) == ["ok", "ok", "late"]
    assert classes(rows, limit(LatencyMetric.E2E, 0.4)) == ["ok", "late", "late"]
    assert classes(rows, limit(LatencyMetric.QUEUE_WAIT, 0.001)) == ["ok", "ok", "ok"]
    assert classes(rows) == ["ok", "ok", "ok"]


@pytest.mark.parametrize(("percentile", "expected"), [(90, "ok"), (91, "late")])
def test_a_request_may_have_its_share_of_long_gaps(percentile: float, expected: str) -> None:
    tokens = [0.1 * k for k in range(1, 11)]
    stream = row(0.0, [*tokens, tokens[-1] + 3.0])
    assert classes([stream], limit(LatencyMetric.ITL, 0.15, percentile)) == [expected]


def test_an_answer_that_is_not_streamed_has_only_an_e2e() -> None:
    whole = row(0.0, ended_s=3.0, streaming=False, output_tokens=20)
    assert classes([whole], TTFT_200, limit(LatencyMetric.ITL, 0.001)) == ["ok"]
    assert classes([whole], limit(LatencyMetric.E2E, 2.0)) == ["late"]
    figures = measured([whole, whole | {"intended_s": 1.0}])
    assert (figures.ttft_s.n, figures.itl_s.n, figures.tpot_s.n, figures.e2e_s.n) == (0, 0, 0, 2)
    assert figures.output_tokens_per_s == pytest.approx(4.0)


def test_tokens_of_an_answer_that_is_not_streamed_are_spread_over_its_service() -> None:
    before = row(0.0, ended_s=8.0, streaming=False, output_tokens=40) | {"queue_wait_s": 4.0}  # served from 4 to 8
    after = row(9.0, ended_s=19.0, streaming=False, output_tokens=50)
    figures = measured([before, after], span=PhaseSpan(6.0, 11.0))
    assert figures.output_tokens_per_s == pytest.approx((20 + 10) / 5.0)
    assert figures.prompt_tokens_per_s == pytest.approx(after["prompt_tokens"] / 5.0)


def test_classes_that_the_load_generator_set_stay_and_the_order_too() -> None:
    set_classes = [RequestClass.SHED, RequestClass.FAILED, RequestClass.DROPPED, RequestClass.UNFINISHED]
    rows = [row(9.0 - k, request_class=each) for k, each in enumerate(set_classes)]
    rows.append(row(0.0, [5.0], request_class=RequestClass.OK))
    assert classes(rows, TTFT_200) == ["shed", "failed", "dropped", "unfinished", "late"]
    once = classify_requests(table(rows), Slos(latency=(TTFT_200,)))
    assert classify_requests(once, Slos(latency=(TTFT_200,))) == once


def test_the_burst_is_held_to_its_own_limits_only_if_it_limits_a_latency() -> None:
    profile = Profile(
        prompt_tokens=ConstantTokens(value=10),
        output_tokens=ConstantTokens(value=10),
        arrival=Arrival(rate_rps=1.0),
        burst=Burst(rate_rps=5.0, duration_s=2.0),
    )
    requests = table([row(0.0, [0.5]), row(1.0, [1.5], phase=Phase.BURST)])
    sustained = Slos(latency=(TTFT_200,))
    loose = Slos(latency=(limit(LatencyMetric.TTFT, 1.0),))
    for burst_slo, expected in ((Slos(goodput_fraction_min=0.5), ["late", "late"]), (loose, ["late", "ok"])):
        requirement = Requirement(name="r", profile=profile, slo=sustained, slo_burst=burst_slo)
        assert classify_run(requests, requirement)["request_class"].to_pylist() == expected


def test_goodput_is_of_offered_requests() -> None:
    rows = served(4) + [row(float(k), request_class=RequestClass.SHED) for k in range(4, 10)]
    figures = measured(rows, Slos(latency=(TTFT_200,)))
    assert (figures.offered, figures.ok, figures.shed) == (10, 4, 6)
    assert figures.goodput_fraction == pytest.approx(0.4)
    assert figures.goodput_rps == pytest.approx(0.4)


def test_unfinished_requests_are_censored_not_forgotten() -> None:
    waiting = [row(10.0 + k, ended_s=40.0, request_class=RequestClass.UNFINISHED) for k in range(10)]
    figures = measured(served(90) + waiting)
    assert figures.ttft_s.n == 100
    assert figures.ttft_s.p50 == pytest.approx(0.1)
    assert figures.ttft_s.p90 == pytest.approx(0.1)
    assert (figures.ttft_s.p95, figures.ttft_s.p99) == (25.0, 29.0)
    assert (figures.ttft_s.censored, figures.ttft_s.at_least) == (10, ("p95", "p99"))
    assert figures.ttft_s.max is None


def test_an_unfinished_stream_has_a_first_token_and_a_gap_that_may_grow() -> None:
    cut = row(0.0, [0.2, 0.3], ended_s=9.0, request_class=RequestClass.UNFINISHED)
    figures = measured([cut, row(1.0, [1.2, 1.3])])
    assert figures.ttft_s.max == pytest.approx(0.2)
    assert figures.itl_s.n == 3
    assert figures.itl_s.max is None
    assert figures.e2e_s.n == 2
    assert figures.e2e_s.max is None
    assert figures.max_gap_s.max is None


def test_gaps_of_a_failed_stream_count_but_its_times_to_first_token_and_end_do_not() -> None:
    cut = row(0.0, [0.1, 4.1], request_class=RequestClass.FAILED)
    figures = measured([cut, *served(2)])
    assert figures.itl_s.max == pytest.approx(4.0)
    assert figures.ttft_s.n == figures.e2e_s.n == 2


def test_tokens_count_by_when_they_arrive_whoever_they_belong_to() -> None:
    rows = [
        row(-1.0, [-0.5, 0.5, 1.5], phase=Phase.WARMUP),
        row(8.0, [9.0, 9.5, 10.0, 10.5]),
        row(9.0, [11.0, 11.5]),
    ]
    figures = measured(rows)
    assert figures.offered == 2
    assert figures.output_tokens_per_s == pytest.approx(0.4)
    assert figures.prompt_tokens_per_s == pytest.approx(1.0)


def test_cost_follows_from_price_and_throughput() -> None:
    figures = measured(served(10), price=Price(usd_per_hour=3.6))
    assert figures.output_tokens_per_s == pytest.approx(5.0)
    assert figures.output_tokens_per_usd == pytest.approx(5000.0)
    assert figures.usd_per_good_request == pytest.approx(0.001)
    late = measured(served(10), Slos(latency=(limit(LatencyMetric.TTFT, 0.01),)), price=Price(usd_per_hour=3.6))
    assert late.usd_per_good_request is None
    assert measured(served(10)).output_tokens_per_usd is None


def test_prefix_hits_queue_wait_and_steps_where_known() -> None:
    rows = [row(0.0, [1.0], cached_tokens=5, queue_wait_s=0.5), row(1.0, [2.0], cached_tokens=0), row(2.0, [3.0])]
    steps = step_table(
        {"start_s": at, "kv_used_blocks": used, "kv_blocks": 10, "preempted": preempted}
        for at, used, preempted in ((0.5, 4, 0), (1.0, 7, 2), (12.0, 10, 5))
    )
    figures = measured(rows, steps=steps)
    assert figures.prefix_hit_rate == pytest.approx(0.25)
    assert figures.queue_wait_s is not None
    assert figures.queue_wait_s.n == 1
    assert (figures.kv_usage_peak, figures.preemptions) == (0.7, 2)
    unknown = measured(served(2))
    assert (unknown.prefix_hit_rate, unknown.queue_wait_s, unknown.kv_usage_peak) == (None, None, None)


def test_a_phase_without_requests_has_empty_figures() -> None:
    figures = measured([])
    assert (figures.offered, figures.goodput_fraction, figures.goodput_rps) == (0, None, 0.0)
    assert figures.ttft_s.n == 0


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="one candidate"):
        measured([row(0.0), row(1.0, candidate="other")])
    with pytest.raises(ValueError, match="end after its start"):
        PhaseSpan(1.0, 1.0)


request_rows = st.builds(
    lambda at, ttft, gaps, request_class, streaming: row(
        at,
        [] if ttft is None else [at + ttft + sum(gaps[:k]) for k in range(len(gaps) + 1)],
        ended_s=at + 60.0,
        request_class=request_class,
        streaming=streaming,
    ),
    st.floats(0.0, 9.0),
    st.one_of(st.none(), st.floats(0.0, 3.0)),
    st.lists(st.floats(0.0, 0.5), max_size=6),
    st.sampled_from(list(RequestClass)),
    st.booleans(),
)


@given(st.lists(request_rows, max_size=30))
def test_every_request_is_in_one_class_and_no_figure_is_infinite(rows: list[dict[str, Any]]) -> None:
    slos = Slos(latency=(TTFT_200, limit(LatencyMetric.ITL, 0.1), limit(LatencyMetric.E2E, 2.0)))
    requests: pa.Table = table(rows)
    figures = phase_measures(requests, Phase.SUSTAINED, SPAN, slos, price=Price(usd_per_hour=1.0))
    assert figures.offered == len(rows)
    completed = sum(each["request_class"] in ("ok", "late") for each in rows)
    assert figures.ok + figures.late == completed
    for name, value in figures.model_dump().items():
        for number in value.values() if isinstance(value, dict) else [value]:
            for end in number if isinstance(number, tuple) else [number]:
                assert end is None or isinstance(end, str) or math.isfinite(end), name
    assert PhaseMeasures.model_validate_json(figures.model_dump_json()) == figures


def test_acceptance_length_counts_the_models_own_token_over_the_drafts_of_the_span() -> None:
    rows = [(0.5, 2, 8, 3), (1.5, 1, 4, 4), (2.5, 0, 0, 0), (99.0, 5, 20, 0)]
    names = ("start_s", "drafts", "drafted", "accepted")
    steps = step_table({"kv_used_blocks": 1, "kv_blocks": 2, **dict(zip(names, each, strict=True))} for each in rows)
    assert measured(served(2), steps=steps).acceptance_length == pytest.approx(1 + 7 / 3)
    assert measured(served(2), steps=steps.slice(2, 1)).acceptance_length is None
    assert measured(served(2)).acceptance_length is None
