"""What a requirement asks of the search, and what a probe's table says to each of its criteria."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "report"))

from request_rows import row, served, table

from setpoint.loop.errors import BadInput
from setpoint.loop.knee.criteria import limits_of, probe_result
from setpoint.loop.knee.planned_load import gaps_of, planned_sizes, profile_at, size_maker
from setpoint.record import Phase, RequestClass
from setpoint.requirement import Requirement
from setpoint.workload.plan import plan_load
from setpoint.workload.prompts import EstimatedPrompts


def requirement(arrival: dict[str, Any] | None = None, streaming: bool = True, **slo: Any) -> Requirement:
    profile = {
        "prompt_tokens": {"kind": "constant", "value": 16},
        "output_tokens": {"kind": "uniform", "min": 2, "max": 40},
        "arrival": arrival or {"rate_rps": 4.0},
        "streaming": streaming,
    }
    return Requirement.model_validate({"name": "r", "profile": profile, "slo": slo})


def latency(metric: str, percentile: float, limit_s: float) -> dict[str, Any]:
    return {"metric": metric, "percentile": percentile, "limit_s": limit_s}


def test_every_limit_is_a_criterion_and_goodput_knows_the_tightest_times() -> None:
    found = limits_of(
        requirement(
            latency=[latency("ttft", 50, 0.1), latency("ttft", 95, 0.3), latency("itl", 99, 0.05), latency("e2e", 99, 5)],
            spread=[{"metric": "e2e", "limit": 4}],
            goodput_fraction_min=0.9,
            shed_fraction_max=0.02,
        )
    )
    named = {limit.criterion.name: limit.criterion for limit in found}
    assert list(named) == ["ttft p50", "ttft p95", "itl p99", "e2e p99", "e2e spread", "goodput", "shed"]
    assert named["ttft p95"].allowed == pytest.approx(0.05)
    assert (named["ttft p95"].ttft_s, named["itl p99"].ttft_s) == (0.3, np.inf)
    assert (named["goodput"].ttft_s, named["goodput"].e2e_s, named["goodput"].counts_refused) == (0.1, 5.0, True)
    assert not named["e2e p99"].counts_refused


def test_failures_are_a_criterion_where_no_limit_would_see_them() -> None:
    assert [limit.criterion.name for limit in limits_of(requirement(latency=[latency("itl", 99, 0.05)]))] == [
        "itl p99",
        "failures",
    ]
    assert limits_of(requirement()) == ()
    assert limits_of(requirement(goodput_fraction_min=1.0))[0].criterion.allowed == pytest.approx(0.001)


def test_a_table_becomes_counts_and_a_trace_of_every_request() -> None:
    rows = served(4, ttft_s=0.1, gap_s=0.02, phase=Phase.WARMUP)
    rows += [row(4.0 + k, [4.0 + k + first for first in (0.2, 0.3, 0.32)]) for k in range(4)]
    rows += [row(9.0, [9.6, 9.7], request_class=RequestClass.LATE)]
    rows += [
        row(10.0, ended_s=10.01, request_class=RequestClass.SHED),
        row(11.0, ended_s=11.5, request_class=RequestClass.FAILED),
    ]
    rows += [row(12.0, [12.1], request_class=RequestClass.UNFINISHED)]
    limits = limits_of(
        requirement(
            latency=[latency("ttft", 90, 0.5), latency("itl", 90, 0.05), latency("e2e", 90, 1.0)],
            goodput_fraction_min=0.9,
            shed_fraction_max=0.1,
        )
    )
    result = probe_result(table(rows), limits, rate_rps=1.0, met="missed")
    counts = {limit.criterion.name: (count.bad, count.samples) for limit, count in zip(limits, result.counts, strict=True)}
    assert (result.offered, result.ok) == (8, 4)
    # The unfinished request's first token came in time, and it was cut off before its E2E limit had passed: of that it says
    # nothing. The failed one counts as late; the refused one does not count.
    assert counts["ttft p90"] == (2.0, 7.0)
    assert counts["e2e p90"] == (1.0, 6.0)
    assert counts["itl p90"] == (5.0, 9.0)
    assert counts["goodput"] == (3.0, 7.0)
    assert counts["shed"] == (1.0, 8.0)
    trace = result.trace
    assert trace is not None
    assert len(trace.arrival_s) == 12
    assert trace.refused.tolist() == [False] * 9 + [True, False, False]
    assert trace.complete.tolist() == [True] * 9 + [False] * 3
    assert np.isnan(trace.end_s[-1])
    assert trace.cutoff_s >= 12.1


def test_the_load_of_a_probe_is_the_requirements_at_another_rate() -> None:
    needed = requirement({"process": "gamma", "rate_rps": 4.0, "cv": 2.0})
    profile = profile_at(needed.profile, 9.0)
    assert (profile.arrival.mean_rps, profile.arrival.cv, profile.burst) == (9.0, 2.0, None)
    gaps = gaps_of(needed.profile.arrival)(100_000, np.random.default_rng(1))
    assert (gaps.mean(), gaps.std()) == (pytest.approx(1.0, abs=0.03), pytest.approx(2.0, abs=0.1))
    make = size_maker(needed.profile)
    assert make is not None
    sizes = make(20_000, np.random.default_rng(2))
    assert sizes.shape == (20_000, 2)
    assert sizes[:, 0].tolist() == [16.0] * 20_000
    assert sizes[:, 1].mean() == pytest.approx(21.0, rel=0.02)
    plan = plan_load(profile, seed=1, warmup_s=1.0, sustained_s=5.0, recovery_s=0.0, make_prompt=EstimatedPrompts())
    planned = planned_sizes(plan)
    assert planned is not None
    assert planned[:, 1].tolist() == [float(request.max_tokens) for request in plan.requests]


def test_arrivals_without_one_rate_are_refused_in_one_line() -> None:
    with pytest.raises(BadInput, match="more than one rate"):
        gaps_of(requirement({"process": "ramp", "rate_rps": 1.0, "to_rps": 4.0}).profile.arrival)
