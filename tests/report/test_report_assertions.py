"""Claims judged on made-up rows: met, missed or inconclusive by the interval, or by the figure where that is what is asked."""

from __future__ import annotations

import pytest
from request_rows import row, served, table

from setpoint.loop.asserts import parse_assertion
from setpoint.record import Phase, RequestClass, SloCheck, Verdict
from setpoint.report.assertions import assertion_check
from setpoint.report.figures import PhaseSpan
from setpoint.requirement import LatencyMetric, LatencySlo, Slos

MET, MISSED, INCONCLUSIVE = Verdict.MET, Verdict.MISSED, Verdict.INCONCLUSIVE
MANY = served(600, ttft_s=0.1, gap_s=0.02, tokens=5)
FEW = served(12)


def judged(text: str, rows: list[dict[str, object]], span_s: float | None = None) -> SloCheck:
    span = PhaseSpan(0.0, span_s if span_s is not None else float(len(rows)))
    return assertion_check(table(rows), span, parse_assertion(text))


def lost(count: int, class_: RequestClass, of: list[dict[str, object]]) -> list[dict[str, object]]:
    """``of`` with every so-manieth request lost."""
    every = len(of) // count
    return [row(float(at), [], float(at) + 0.01, class_) if at % every == every // 2 else each for at, each in enumerate(of)]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("ttft_p99<200ms", MET),
        ("ttft_p99<50ms", MISSED),
        ("ttft_p50>50ms", MET),
        ("ttft_p50>200ms", MISSED),
        ("ttft_mean<200ms", MET),
        ("ttft_mean<50ms", MISSED),
        ("ttft_max<200ms", MET),
        ("ttft_max<50ms", MISSED),
        ("itl_p99<30ms", MET),
        ("max_gap_p95<10ms", MISSED),
        ("e2e_p90<1s", MET),
        ("tpot_mean<30ms", MET),
        ("spread_ttft<2", MET),
        ("goodput>=0.99", MET),
        ("goodput>=1", MET),
        ("shed<1%", MET),
        ("failed<1", MET),
        ("ok>=600", MET),
        ("ok>600", MISSED),
        ("unfinished<=0", MET),
        ("stalled_500ms<1%", MET),
        ("stalled_10ms<50%", MISSED),
        ("goodput_rps>0.9", MET),
        ("goodput_rps>2", MISSED),
        ("requests_per_s>0.9", MET),
        ("output_tokens_per_s>4", MET),
        ("output_tokens_per_s>6", MISSED),
        ("prompt_tokens_per_s>9", MET),
        ("queue_wait_p99<1s", INCONCLUSIVE),
    ],
)
def test_a_steady_run_decides_what_is_far_from_its_limit(text: str, verdict: Verdict) -> None:
    check = judged(text, MANY)
    assert check.verdict is verdict, check
    assert (check.asserted, check.phase) == (text, Phase.SUSTAINED)


@pytest.mark.parametrize("text", ["ttft_p99<200ms", "itl_p99.9<30ms", "goodput>=0.99", "shed<1%"])
def test_a_dozen_requests_decide_no_tail(text: str) -> None:
    assert judged(text, FEW).verdict is INCONCLUSIVE


def test_a_share_is_decided_by_its_interval() -> None:
    rows = lost(12, RequestClass.SHED, MANY)
    assert [judged(f"shed<{limit}", rows).verdict for limit in ("10%", "2%", "0.1%")] == [MET, INCONCLUSIVE, MISSED]
    check = judged("goodput>=0.99", rows)
    assert check.value == pytest.approx(588 / 600)
    assert check.interval is not None
    assert check.interval[0] < 588 / 600 < check.interval[1]


def test_counts_and_the_ends_of_a_share_are_about_this_run() -> None:
    rows = lost(1, RequestClass.FAILED, MANY)
    assert judged("failed<=0", rows).verdict is MISSED
    assert judged("failed<1", rows).verdict is MISSED
    assert judged("failed<=1", rows).verdict is MET
    assert judged("goodput>=1", rows).verdict is MISSED


def test_failures_are_infinitely_late_but_no_part_of_a_mean() -> None:
    rows = lost(60, RequestClass.FAILED, MANY)
    assert judged("ttft_p99<10s", rows).verdict is MISSED
    assert judged("ttft_max<10s", rows).verdict is MISSED
    assert judged("ttft_mean<200ms", rows).verdict is MET
    assert judged("itl_p99<30ms", rows).verdict is MET


def test_what_was_cut_off_leaves_a_mean_open_and_a_largest_value_too() -> None:
    rows = [*MANY, row(600.0, [], 600.5, RequestClass.UNFINISHED)]
    assert judged("ttft_mean<10s", rows).verdict is INCONCLUSIVE
    assert judged("ttft_max<10s", rows).verdict is INCONCLUSIVE
    assert judged("ttft_max<300ms", rows).verdict is MISSED
    assert judged("ttft_mean<50ms", rows).verdict is MISSED


def test_another_phase_is_judged_on_its_own_rows_or_not_at_all() -> None:
    burst = [row(1000.0 + at, [1000.9 + at], phase=Phase.BURST) for at in range(600)]
    span = PhaseSpan(1000.0, 1600.0)
    claim = parse_assertion("burst:ttft_p95<500ms")
    assert assertion_check(table([*MANY, *burst]), span, claim).verdict is MISSED
    assert assertion_check(table(MANY), None, claim).verdict is INCONCLUSIVE


def test_a_run_without_requests_decides_nothing() -> None:
    for text in ("ttft_p99<1s", "goodput>=0.9", "failed<1", "output_tokens_per_s>1", "ttft_mean<1s", "ttft_max<1s"):
        assert judged(text, [], 10.0).verdict is INCONCLUSIVE


def test_a_share_of_requests_that_have_not_ended_is_open_for_them() -> None:
    rows = [*served(90), *(row(float(at), [], None, RequestClass.UNFINISHED) for at in range(90, 100))]
    assert judged("goodput>=0.98", rows).verdict is INCONCLUSIVE
    assert judged("late<5%", rows).verdict is INCONCLUSIVE
    assert judged("goodput>=1", rows).verdict is INCONCLUSIVE
    assert judged("goodput>=0.3", rows).verdict is MET
    # Those that had missed a limit by then cannot be good any more.
    rows = [row(float(at), [], None, RequestClass.UNFINISHED) if at % 4 == 3 else each for at, each in enumerate(served(400))]
    slos = Slos(latency=(LatencySlo(metric=LatencyMetric.TTFT, percentile=95.0, limit_s=0.5),))
    claim, span = parse_assertion("goodput>=0.98"), PhaseSpan(0.0, 400.0)
    assert assertion_check(table(rows), span, claim).verdict is INCONCLUSIVE
    assert assertion_check(table(rows[:390]), span, claim, slos=slos).verdict is MISSED


def test_tokens_of_whole_answers_count_while_they_are_made() -> None:
    """Answers of 20 s over a phase of 60 s: at their ends only two thirds of the tokens would be in it."""
    rows = [row(-20.0 + at / 10, [], at / 10, streaming=False, output_tokens=10) for at in range(800)]
    check = judged("output_tokens_per_s>=90", rows, 60.0)
    assert check.value == pytest.approx(100.0, rel=0.01)
    assert check.verdict is MET


def test_answers_that_are_not_streamed_have_no_gaps() -> None:
    rows = [row(float(at), [], at + 0.5, streaming=False, output_tokens=5) for at in range(600)]
    assert judged("e2e_p99<1s", rows).verdict is MET
    assert judged("output_tokens_per_s>4", rows).verdict is MET
    assert judged("stalled_1s<1%", rows).verdict is INCONCLUSIVE


@pytest.mark.parametrize("text", ["ttft_p99<200ms", "ttft_p99<1s", "goodput>=0.9", "ttft_mean<200ms"])
def test_what_was_kept_under_a_growing_backlog_is_not_shown_to_be_kept(text: str) -> None:
    span = PhaseSpan(0.0, float(len(MANY)))
    assertion = parse_assertion(text)
    assert assertion_check(table(MANY), span, assertion, growing=True).verdict is INCONCLUSIVE
    assert assertion_check(table(MANY), span, parse_assertion("ttft_p99<50ms"), growing=True).verdict is MISSED
    for kept in ("ok>=600", "ttft_p50>50ms"):
        assert assertion_check(table(MANY), span, parse_assertion(kept), growing=True).verdict is MET
