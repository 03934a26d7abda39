"""Verdicts on small runs: met, missed and inconclusive follow from the whole interval, and failures never help."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from request_rows import row, served, table

from setpoint.record import CONVERSATION_OVER, Phase, RequestClass, SloCheck, SloReport, Verdict
from setpoint.report.judge import judge, overall_verdict, spread_within, within_limit
from setpoint.report.request_samples import Sample
from setpoint.report.steady import steady_state
from setpoint.requirement import (
    Arrival,
    Burst,
    ConstantTokens,
    LatencyMetric,
    LatencySlo,
    RequestProfile,
    Requirement,
    Slos,
    SpreadSlo,
)
from setpoint.statistics import percentile_interval

PROFILE = RequestProfile(
    prompt_tokens=ConstantTokens(value=10),
    output_tokens=ConstantTokens(value=10),
    arrival=Arrival(rate_rps=1.0),
    burst=Burst(rate_rps=5.0, duration_s=2.0),
)


def p95(metric: LatencyMetric, limit_s: float) -> Slos:
    return Slos(latency=(LatencySlo(metric=metric, percentile=95, limit_s=limit_s),))


def judged(rows: list[dict[str, Any]], slo: Slos | None = None, slo_burst: Slos | None = None) -> SloReport:
    requirement = Requirement(name="r", profile=PROFILE, slo=slo or Slos(), slo_burst=slo_burst or Slos())
    report = judge(table(rows), requirement)
    assert SloReport.model_validate_json(report.model_dump_json()) == report
    return report


def only_check(rows: list[dict[str, Any]], slo: Slos) -> SloCheck:
    (check,) = judged(rows, slo).checks
    return check


def ended(count: int, request_class: RequestClass, start_s: float = 0.5, **fields: Any) -> list[dict[str, Any]]:
    """Requests that never got an answer, spread over the run so that they do not cluster."""
    return [row(start_s + 7.0 * k, request_class=request_class, **fields) for k in range(count)]


def varied(count: int, low_s: float, high_s: float) -> list[dict[str, Any]]:
    """Streams whose TTFT runs over an interval in a scattered order."""
    ttfts = [low_s + (high_s - low_s) * ((k * 89) % count) / count for k in range(count)]
    return [row(float(k), [k + ttft, k + ttft + 0.02]) for k, ttft in enumerate(ttfts)]


@pytest.mark.parametrize(("limit_s", "verdict"), [(0.3, Verdict.MET), (0.05, Verdict.MISSED), (0.195, Verdict.INCONCLUSIVE)])
def test_the_whole_interval_decides(limit_s: float, verdict: Verdict) -> None:
    check = only_check(varied(300, 0.1, 0.2), p95(LatencyMetric.TTFT, limit_s))
    assert (check.metric, check.statistic, check.phase) == ("ttft", "p95", Phase.SUSTAINED)
    assert check.value == pytest.approx(0.195, abs=0.001)
    assert check.interval is not None
    assert check.interval[0] < 0.195 < check.interval[1]
    assert check.verdict is verdict


def test_too_few_samples_are_inconclusive_but_can_miss() -> None:
    few = varied(30, 0.1, 0.2)
    good = only_check(few, p95(LatencyMetric.TTFT, 10.0))
    assert (good.verdict, good.interval) == (Verdict.INCONCLUSIVE, None)
    assert only_check(few, p95(LatencyMetric.TTFT, 0.01)).verdict is Verdict.MISSED
    assert only_check([], p95(LatencyMetric.TTFT, 1.0)).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("request_class", [RequestClass.FAILED, RequestClass.DROPPED])
@pytest.mark.parametrize("metric", [LatencyMetric.TTFT, LatencyMetric.E2E])
def test_failed_and_dropped_requests_are_infinitely_late(request_class: RequestClass, metric: LatencyMetric) -> None:
    check = only_check(served(180) + ended(30, request_class), p95(metric, 5.0))
    assert (check.value, check.interval, check.verdict) == (None, None, Verdict.MISSED)


def test_shed_requests_are_in_no_latency_check() -> None:
    check = only_check(served(200) + ended(100, RequestClass.SHED), p95(LatencyMetric.TTFT, 0.5))
    assert check.verdict is Verdict.MET


@pytest.mark.parametrize(("cutoff_s", "verdict"), [(10_000.0, Verdict.MISSED), (None, Verdict.INCONCLUSIVE)])
def test_unfinished_requests_cannot_help_and_count_as_missed_once_past_the_limit(
    cutoff_s: float | None, verdict: Verdict
) -> None:
    rows = served(180)
    for lost in ended(30, RequestClass.UNFINISHED):
        rows.append(lost | {"ended_s": cutoff_s or lost["intended_s"] + 0.2})
    check = only_check(rows, p95(LatencyMetric.TTFT, 0.5))
    assert check.value is None
    assert check.verdict is verdict


def test_itl_is_judged_over_all_gaps() -> None:
    rows = [row(float(k), [k + 0.1 * j for j in range(1, 8)]) for k in range(60)]
    report = judged(rows, p95(LatencyMetric.ITL, 0.11))
    assert [check.metric for check in report.checks] == ["itl", "failed_fraction"]
    assert report.verdict is Verdict.MET


def test_spread_is_the_ratio_of_p99_and_p50() -> None:
    rows = varied(2000, 0.1, 0.3)
    tight = Slos(spread=(SpreadSlo(metric=LatencyMetric.TTFT, limit=1.2),))
    loose = Slos(spread=(SpreadSlo(metric=LatencyMetric.TTFT, limit=2.0),))
    check = only_check(rows, loose)
    assert (check.metric, check.statistic) == ("spread", "ttft")
    assert check.value == pytest.approx(0.298 / 0.2, rel=0.01)
    assert check.verdict is Verdict.MET
    assert only_check(rows, tight).verdict is Verdict.MISSED
    assert only_check(rows[:100], loose).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("minimum", "verdict"),
    [(0.5, Verdict.MET), (0.99, Verdict.MISSED), (0.88, Verdict.INCONCLUSIVE), (1.0, Verdict.MISSED)],
)
def test_goodput_is_judged_of_offered_requests(minimum: float, verdict: Verdict) -> None:
    rows = served(240) + ended(30, RequestClass.SHED)
    check = only_check(rows, Slos(goodput_fraction_min=minimum))
    assert (check.metric, check.statistic) == ("goodput_fraction", "min")
    assert check.value == pytest.approx(240 / 270)
    assert check.verdict is verdict


def test_goodput_counts_late_requests_as_bad() -> None:
    slos = p95(LatencyMetric.TTFT, 0.05).model_copy(update={"goodput_fraction_min": 0.5})
    goodput = judged(served(100), slos).checks[1]
    assert (goodput.value, goodput.verdict) == (0.0, Verdict.MISSED)


@pytest.mark.parametrize(("maximum", "verdict"), [(0.5, Verdict.MET), (0.01, Verdict.MISSED), (0.0, Verdict.MISSED)])
def test_shed_fraction(maximum: float, verdict: Verdict) -> None:
    slos = p95(LatencyMetric.TTFT, 0.5).model_copy(update={"shed_fraction_max": maximum})
    assert judged(served(240) + ended(30, RequestClass.SHED), slos).checks[1].verdict is verdict


def test_no_shedding_at_all_can_be_met() -> None:
    slos = p95(LatencyMetric.TTFT, 0.5).model_copy(update={"shed_fraction_max": 0.0, "goodput_fraction_min": 1.0})
    assert judged(served(100), slos).verdict is Verdict.MET


def test_lateness_that_clusters_is_known_less_well() -> None:
    late = [row(float(k), [k + 1.0]) for k in range(60, 90)]
    clustered = served(60) + late + served(150)[90:]
    scattered = [row(float(k), [k + (1.0 if k % 5 == 0 else 0.1)]) for k in range(150)]
    slos = p95(LatencyMetric.TTFT, 0.5).model_copy(update={"goodput_fraction_min": 0.7})
    intervals = [judged(rows, slos).checks[1].interval for rows in (clustered, scattered)]
    widths = [interval[1] - interval[0] for interval in intervals if interval is not None]
    assert widths[0] > 2 * widths[1]


def test_the_burst_is_judged_by_its_own_limits() -> None:
    burst = [each | {"phase": "burst"} for each in served(100, ttft_s=0.9)]
    report = judged(served(100) + burst, p95(LatencyMetric.TTFT, 0.5), p95(LatencyMetric.TTFT, 0.6))
    assert [(check.phase, check.verdict) for check in report.checks] == [
        (Phase.SUSTAINED, Verdict.MET),
        (Phase.BURST, Verdict.MISSED),
    ]
    assert report.verdict is Verdict.MISSED


def test_a_burst_that_was_not_run_is_inconclusive() -> None:
    report = judged(served(100), p95(LatencyMetric.TTFT, 0.5), p95(LatencyMetric.TTFT, 0.6))
    assert report.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        (served(3), Verdict.MET),
        (served(3) + ended(1, RequestClass.FAILED), Verdict.MISSED),
        (served(3) + ended(2, RequestClass.UNFINISHED), Verdict.MET),
        (ended(2, RequestClass.SHED), Verdict.MISSED),
        ([], Verdict.INCONCLUSIVE),
    ],
)
def test_without_limits_something_must_be_served_and_nothing_fail(rows: list[dict[str, Any]], verdict: Verdict) -> None:
    assert judged(rows).verdict is verdict


def test_overall_verdict() -> None:
    def checks(*verdicts: Verdict) -> list[SloCheck]:
        fields = {"metric": "ttft", "statistic": "p95", "phase": "sustained", "limit": 1, "value": 1, "interval": None}
        return [SloCheck.model_validate(fields | {"verdict": verdict}) for verdict in verdicts]

    assert overall_verdict([]) is Verdict.MET
    assert overall_verdict(checks(Verdict.MET, Verdict.INCONCLUSIVE)) is Verdict.INCONCLUSIVE
    assert overall_verdict(checks(Verdict.INCONCLUSIVE, Verdict.MISSED)) is Verdict.MISSED


@given(
    st.lists(st.floats(0.0, 2.0), min_size=1, max_size=120),
    st.lists(st.sampled_from([RequestClass.FAILED, RequestClass.DROPPED, RequestClass.UNFINISHED]), max_size=10),
    st.floats(0.1, 2.0),
)
def test_losing_requests_never_turns_missed_into_met(ttfts: list[float], lost: list[RequestClass], limit_s: float) -> None:
    rows = [row(float(k), [k + ttft]) for k, ttft in enumerate(ttfts)]
    gone = [row(float(len(ttfts) + k), request_class=each) for k, each in enumerate(lost)]
    before, after = (only_check(each, p95(LatencyMetric.TTFT, limit_s)) for each in (rows, rows + gone))
    if before.verdict is Verdict.MISSED:
        assert after.verdict is not Verdict.MET
    if after.value is not None:
        assert before.value is None or after.value >= before.value
        assert math.isfinite(after.value)


def test_a_limit_far_above_slow_waves_is_met_though_the_percentile_itself_has_no_upper_end() -> None:
    """Latencies in waves, all far below the limit: the waves matter little to it, but do to the percentile itself."""
    walk = np.convolve(np.random.default_rng(4).standard_normal(600), np.ones(8) / 8.0, mode="valid")[:288]
    sample = Sample(0.06 * np.exp(walk), np.zeros(288, dtype=np.bool_))
    interval = percentile_interval(sample.values, 95)
    assert interval is None or math.isinf(interval[1])
    assert within_limit(sample, 95.0, 1.0) is Verdict.MET


def test_waves_that_reach_over_the_limit_stay_undecided() -> None:
    waves = [0.05 + (0.6 if 40 <= index < 47 else 0.0) for index in range(144)]
    sample = Sample(np.array(waves), np.zeros(144, dtype=np.bool_))
    assert within_limit(sample, 95.0, 0.5) is Verdict.INCONCLUSIVE


def test_a_cut_off_request_below_the_limit_can_prevent_met_but_not_prove_a_miss() -> None:
    values = np.full(144, 0.1)
    assert within_limit(Sample(values, np.arange(144) % 4 == 0), 95.0, 0.5) is Verdict.INCONCLUSIVE
    assert within_limit(Sample(values + 1.0, np.arange(144) % 4 == 0), 95.0, 0.5) is Verdict.MISSED


@pytest.mark.parametrize(("share", "expected"), [(2.0, Verdict.MET), (0.6, Verdict.MISSED), (1.0, Verdict.INCONCLUSIVE)])
def test_a_spread_whose_p99_has_no_upper_end_is_judged_by_the_share_beyond(share: float, expected: Verdict) -> None:
    values = np.random.default_rng(3).lognormal(-2.0, 0.4, 500)
    sample = Sample(values, np.zeros(500, dtype=np.bool_))
    interval = percentile_interval(values, 99)
    assert interval is not None
    assert math.isinf(interval[1])
    spread = float(np.percentile(values, 99) / np.percentile(values, 50))
    assert spread_within(sample, share * spread) is expected


def overloaded(growth_s: float, limit_s: float) -> SloReport:
    """400 streams, two a second, each ``growth_s`` later than the one before, against a P95 of TTFT."""
    rows = [row(0.5 * k, [0.5 * k + 0.1 + growth_s * k, 0.5 * k + 0.12 + growth_s * k]) for k in range(400)]
    return judged(rows, p95(LatencyMetric.TTFT, limit_s))


def test_under_a_growing_backlog_nothing_is_met_and_a_miss_stays_one() -> None:
    assert overloaded(0.0, 60.0).verdict is Verdict.MET
    assert overloaded(0.05, 60.0).verdict is Verdict.INCONCLUSIVE
    assert overloaded(0.05, 2.0).verdict is Verdict.MISSED


def test_a_burst_is_judged_by_what_happened_in_it() -> None:
    """The first fifth of a burst is quick, the rest waits longer and longer: its P90 is over the limit for certain."""
    rows = [row(0.02 * k, [0.02 * k + 0.1 + 0.03 * k], phase=Phase.BURST) for k in range(120)]
    report = judged(served(100) + rows, p95(LatencyMetric.TTFT, 0.5), p95(LatencyMetric.TTFT, 0.8))
    assert [check.verdict for check in report.checks] == [Verdict.MET, Verdict.MISSED]


def test_goodput_is_judged_by_how_much_each_request_missed() -> None:
    """Latenesses that come together leave less information than the same number scattered."""
    slos = p95(LatencyMetric.TTFT, 0.5).model_copy(update={"goodput_fraction_min": 0.9})
    scattered = [row(float(k), [k + (1.0 if k % 20 == 0 else 0.1 + 0.01 * (k * 7 % 13))]) for k in range(400)]
    together = [row(float(k), [k + (1.0 if k % 200 < 10 else 0.1 + 0.01 * (k * 7 % 13))]) for k in range(400)]
    goodputs = [judged(rows, slos).checks[1] for rows in (scattered, together)]
    assert [check.value for check in goodputs] == [0.95, 0.95]
    assert [check.verdict for check in goodputs] == [Verdict.MET, Verdict.INCONCLUSIVE]


def test_unfinished_requests_that_missed_nothing_yet_leave_goodput_open() -> None:
    slos = Slos(goodput_fraction_min=0.9, latency=p95(LatencyMetric.TTFT, 1.0).latency)

    def goodput(unfinished: dict[str, Any]) -> SloCheck:
        rows = [done if at % 5 else done | unfinished | {"request_class": "unfinished"} for at, done in enumerate(served(500))]
        return next(each for each in judged(rows, slos).checks if each.metric == "goodput_fraction")

    begun = goodput({"ended_s": 600.0})
    assert begun.value == 0.8
    assert begun.verdict is Verdict.INCONCLUSIVE
    late = goodput({"ended_s": 600.0, "first_token_s": None, "last_token_s": None, "token_times_s": []})
    assert late.verdict is Verdict.MISSED


@pytest.mark.parametrize("request_class", [RequestClass.SHED, RequestClass.FAILED])
def test_a_run_in_which_nobody_was_served_is_missed_whatever_is_limited(request_class: RequestClass) -> None:
    nobody = ended(100, request_class)
    assert judged(nobody, p95(LatencyMetric.TTFT, 0.5)).verdict is Verdict.MISSED
    assert judged(nobody, Slos(spread=(SpreadSlo(metric=LatencyMetric.E2E, limit=3.0),))).verdict is Verdict.MISSED


def test_a_spread_of_requests_of_which_most_never_ended_is_missed() -> None:
    lost = [row(float(at), [], at + 0.5, RequestClass.FAILED) for at in range(200)]
    rows = [each if at % 10 < 8 else fine for at, (each, fine) in enumerate(zip(lost, served(200), strict=True))]
    assert only_check(rows, Slos(spread=(SpreadSlo(metric=LatencyMetric.E2E, limit=3.0),))).verdict is Verdict.MISSED


def test_turns_that_were_not_due_are_no_backlog() -> None:
    """A refused turn takes those after it along: they were never in the server."""
    rows = served(400)
    rows = [
        row(float(at), [], None, RequestClass.DROPPED, error=CONVERSATION_OVER) if at % 8 == 7 else each
        for at, each in enumerate(rows)
    ]
    assert not steady_state(table(rows)).drifting
    assert steady_state(table([{**each, "error": None} for each in rows])).drifting
