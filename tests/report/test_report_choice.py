"""The choice among candidates and the sentences that explain it."""

from __future__ import annotations

import pytest

from setpoint.record import Candidate, Measured, Phase, PhaseMeasures, SloCheck, SloReport, Summary, Verdict
from setpoint.report.judge import choose
from setpoint.requirement import Objective


def figures(
    goodput_rps: float = 2.0,
    output_tokens_per_s: float = 100.0,
    ttft_p95_s: float | None = 0.2,
    e2e_p95_s: float = 2.0,
    per_usd: float | None = None,
) -> PhaseMeasures:
    ok = round(goodput_rps * 500)
    ttft = Summary(n=ok, p95=ttft_p95_s) if ttft_p95_s is not None else Summary(n=0)
    return PhaseMeasures(
        offered=ok,
        ok=ok,
        late=0,
        shed=0,
        failed=0,
        dropped=0,
        unfinished=0,
        duration_s=500.0,
        ttft_s=ttft,
        itl_s=Summary(n=0),
        max_gap_s=Summary(n=0),
        tpot_s=Summary(n=0),
        e2e_s=Summary(n=ok, p95=e2e_p95_s),
        goodput_rps=goodput_rps,
        goodput_fraction=1.0,
        output_tokens_per_s=output_tokens_per_s,
        prompt_tokens_per_s=0.0,
        output_tokens_per_usd=per_usd,
    )


def check(verdict: Verdict, value: float | None, metric: str = "ttft", statistic: str = "p95", limit: float = 0.3) -> SloCheck:
    interval = (value * 0.9, value * 1.1) if value is not None else None
    return SloCheck(
        metric=metric,
        statistic=statistic,
        phase=Phase.SUSTAINED,
        limit=limit,
        value=value,
        interval=interval,
        verdict=verdict,
    )


def candidate(name: str, measures: PhaseMeasures | None, *checks: SloCheck) -> Candidate:
    verdicts = {each.verdict for each in checks}
    order = (Verdict.MISSED, Verdict.INCONCLUSIVE)
    verdict = next((each for each in order if each in verdicts), Verdict.MET)
    measured = Measured(sustained=measures) if measures is not None else None
    return Candidate(name=name, config={}, measured=measured, slo=SloReport(verdict=verdict, checks=list(checks)))


def test_the_objective_decides_among_those_that_meet_every_slo() -> None:
    candidates = [
        candidate("immediate", figures(0.5, 30.0, 0.1, 1.5, 10.0)),
        candidate("static", figures(1.8, 90.0, 0.9, 1.4, 50.0)),
        candidate("continuous", figures(2.4, 80.0, 0.2, 1.9, 40.0)),
        candidate("unmet", figures(9.0, 900.0, 0.01, 0.1, 900.0), check(Verdict.MISSED, 1.2)),
    ]
    expected = {
        Objective.MAX_GOODPUT: "continuous",
        Objective.MAX_THROUGHPUT: "static",
        Objective.MIN_COST: "static",
        Objective.MIN_LATENCY: "immediate",
    }
    for objective, name in expected.items():
        assert choose(candidates, objective)[0] == name


def test_the_words_say_why_the_chosen_won_and_each_other_lost() -> None:
    candidates = [
        candidate("continuous", figures(2.4)),
        candidate("static", figures(1.8)),
        candidate("immediate", figures(0.5), check(Verdict.MISSED, 1.2)),
        candidate("setpoint", figures(2.0), check(Verdict.INCONCLUSIVE, 0.3)),
        candidate("broken", None, check(Verdict.INCONCLUSIVE, None)),
    ]
    chosen, why = choose(candidates, Objective.MAX_GOODPUT)
    assert chosen == "continuous"
    assert why.startswith("continuous was chosen for the highest goodput among the 2 of 5 configurations")
    assert "static lost: it meets every SLO, but its goodput is 1.80/s, 25.0 % less than the 2.40/s of" in why
    assert "immediate lost: it misses TTFT P95 ≤ 300 ms in the sustained phase (1.20 s, 95 % interval 1.08" in why
    assert "setpoint lost: it is not shown to meet TTFT P95 ≤ 300 ms" in why
    assert "broken lost: it was not measured." in why


def test_without_a_price_cost_falls_back_to_throughput() -> None:
    candidates = [candidate("a", figures(output_tokens_per_s=50.0)), candidate("b", figures(output_tokens_per_s=80.0))]
    chosen, why = choose(candidates, Objective.MIN_COST)
    assert chosen == "b"
    assert "tokens/s" in why


def test_without_streaming_latency_is_e2e() -> None:
    candidates = [candidate("a", figures(ttft_p95_s=None)), candidate("b", figures(ttft_p95_s=None, e2e_p95_s=1.0))]
    chosen, why = choose(candidates, Objective.MIN_LATENCY)
    assert chosen == "b"
    assert "its E2E P95 is 1.00 s" in why


def test_equals_are_told_apart_by_latency() -> None:
    candidates = [
        candidate("a", figures(output_tokens_per_s=100.0, ttft_p95_s=0.4)),
        candidate("b", figures(output_tokens_per_s=99.5, ttft_p95_s=0.1)),
        candidate("c", figures(output_tokens_per_s=80.0, ttft_p95_s=0.01)),
    ]
    chosen, why = choose(candidates, Objective.MAX_THROUGHPUT)
    assert chosen == "b"
    assert "another is equal to it within the noise; the lower TTFT P95 decided" in why
    assert "a lost: it meets every SLO, but its TTFT P95 is 400 ms, 300.0 % more than the 100 ms of b." in why
    assert "c lost: it meets every SLO, but its output is 80.0 tokens/s" in why


def test_one_candidate_is_told_as_one() -> None:
    assert choose([candidate("a", figures())], Objective.MAX_GOODPUT) == (
        "a",
        "a meets every SLO; its goodput is 2.00/s.",
    )
    _, why = choose([candidate("a", figures(), check(Verdict.MISSED, 0.6))], Objective.MAX_GOODPUT)
    assert why.startswith("a does not meet every SLO: it misses TTFT P95")
    assert choose([], Objective.MAX_GOODPUT) == (None, "There is no candidate.")


def test_if_none_is_met_the_nearest_is_named_with_what_would_have_to_give() -> None:
    candidates = [
        candidate("far", figures(), check(Verdict.MISSED, 3.0)),
        candidate("near", figures(), check(Verdict.MISSED, 0.4), check(Verdict.MET, 0.1)),
        candidate("lost", figures(), check(Verdict.MISSED, None)),
    ]
    chosen, why = choose(candidates, Objective.MAX_GOODPUT)
    assert chosen is None
    assert "near came nearest" in why
    assert "the limit would have to rise from 300 ms to at least 440 ms, or the load to fall." in why
    assert "far lost: it misses" in why
    assert "no value can be stated" in why


def test_a_floor_would_have_to_fall() -> None:
    goodput = check(Verdict.MISSED, 0.8, "goodput_fraction", "min", 0.95)
    _, why = choose([candidate("a", figures(), goodput)], Objective.MAX_GOODPUT)
    assert "Goodput in the sustained phase to be met the limit would have to fall from 95.0 % to at most 72.0 %" in why


def test_what_is_only_inconclusive_is_nearer_than_what_is_missed_and_needs_time() -> None:
    candidates = [
        candidate("missed", figures(), check(Verdict.MISSED, 0.31)),
        candidate("open", figures(), check(Verdict.INCONCLUSIVE, None)),
    ]
    _, why = choose(candidates, Objective.MAX_GOODPUT)
    assert "open came nearest" in why
    assert "measure longer" in why


def test_requests_that_never_ended_are_cured_by_no_limit() -> None:
    lost = figures().model_copy(update={"failed": 100, "ok": 900})
    _, why = choose([candidate("a", lost, check(Verdict.MISSED, None))], Objective.MAX_GOODPUT)
    assert "no limit would do" in why


def test_a_percentile_of_too_few_samples_is_not_said_to_have_never_ended() -> None:
    _, why = choose([candidate("a", figures(), check(Verdict.MISSED, None))], Objective.MAX_GOODPUT)
    assert "never ended" not in why
    assert "too few samples" in why


@pytest.mark.parametrize("objective", list(Objective))
def test_the_words_are_sentences_without_special_spaces(objective: Objective) -> None:
    candidates = [candidate("a", figures(2.0)), candidate("b", figures(1.0)), candidate("c", figures(2.0))]
    _, why = choose(candidates, objective)
    assert why.endswith(".")
    assert "\u00a0" not in why
