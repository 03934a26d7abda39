"""The parts of a requirement refuse what contradicts itself, and survive being dumped and read again."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from setpoint.requirement import (
    Arrival,
    ArrivalProcess,
    Burst,
    ChoiceTokens,
    ConstantTokens,
    LatencyMetric,
    LatencySlo,
    LognormalTokens,
    Part,
    RequestProfile,
    Requirement,
    Slos,
    SpreadSlo,
    TokenDistribution,
    UniformTokens,
)


def profile(**changes: Any) -> RequestProfile:
    fields: dict[str, Any] = {
        "prompt_tokens": UniformTokens(min=10, max=50),
        "output_tokens": ConstantTokens(value=16),
        "arrival": Arrival(rate_rps=2.0),
    }
    return RequestProfile(**(fields | changes))


def latency(metric: LatencyMetric, percentile: float = 95, limit_s: float = 0.3) -> LatencySlo:
    return LatencySlo(metric=metric, percentile=percentile, limit_s=limit_s)


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        (UniformTokens, {"min": 5, "max": 4}, "min: allowed: at most max (4)"),
        (LognormalTokens, {"median": 10, "p95": 5, "max": 20}, "p95: allowed: at least the median (10)"),
        (LognormalTokens, {"median": 10, "p95": 30, "max": 20}, "max: allowed: at least p95 (30)"),
        (LognormalTokens, {"median": 10, "p95": 15, "min": 11, "max": 20}, "min: allowed: at most the median (10)"),
        (ChoiceTokens, {"values": (1, 2), "weights": (1.0,)}, "weights: allowed: one weight for each of the 2 values"),
        (ChoiceTokens, {"values": (1, 2), "weights": (0.0, 0.0)}, "a sum above 0"),
        (ChoiceTokens, {"values": (1, 2), "weights": (2.0, -1.0)}, "numbers of at least 0"),
        (ChoiceTokens, {"values": ()}, "at least 1 item"),
        (Arrival, {"rate_rps": 1, "cv": 2}, "no cv with poisson arrivals"),
        (Arrival, {"rate_rps": float("inf")}, "finite"),
        (SpreadSlo, {"metric": "e2e", "limit": 0.5}, "greater than or equal to 1"),
    ],
)
def test_a_part_names_the_field_that_contradicts(part: type[Part], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        part(**fields)
    assert message in str(caught.value)


def test_shared_prefix_must_leave_the_shortest_prompt_a_token() -> None:
    assert profile(shared_prefix_tokens=9).shared_prefix_tokens == 9
    with pytest.raises(ValidationError, match="shared_prefix_tokens: allowed: less than the shortest possible prompt"):
        profile(shared_prefix_tokens=10)


def test_burst_must_be_above_the_sustained_rate() -> None:
    with pytest.raises(ValidationError, match="above the sustained rate"):
        profile(burst=Burst(rate_rps=2.0, duration_s=1.0))


@pytest.mark.parametrize("metric", [LatencyMetric.TTFT, LatencyMetric.ITL, LatencyMetric.TPOT])
def test_token_limits_need_streaming(metric: LatencyMetric) -> None:
    for slos in (Slos(latency=(latency(metric),)), Slos(spread=(SpreadSlo(metric=metric, limit=3),))):
        with pytest.raises(ValidationError, match="nobody sees single tokens"):
            Requirement(name="x", profile=profile(streaming=False), slo=slos)


def test_gap_limits_need_two_tokens() -> None:
    with pytest.raises(ValidationError, match="no gaps"):
        Requirement(
            name="x",
            profile=profile(output_tokens=ConstantTokens(value=1)),
            slo=Slos(latency=(latency(LatencyMetric.ITL),)),
        )


def test_burst_limits_need_a_burst() -> None:
    with pytest.raises(ValidationError, match="no slo_burst without a burst"):
        Requirement(name="x", profile=profile(), slo_burst=Slos(shed_fraction_max=0.1))


def test_a_higher_percentile_is_never_tighter() -> None:
    with pytest.raises(ValidationError, match=r"e2e\.p99: allowed: at least the limit of p95"):
        Slos(latency=(latency(LatencyMetric.E2E, 95, 2.0), latency(LatencyMetric.E2E, 99, 1.0)))
    with pytest.raises(ValidationError, match=r"e2e\.p95: allowed: one limit for p95"):
        Slos(latency=(latency(LatencyMetric.E2E, 95, 2.0), latency(LatencyMetric.E2E, 95, 1.0)))


def test_tightest_limit_of_a_metric() -> None:
    slos = Slos(latency=(latency(LatencyMetric.E2E, 50, 1.0), latency(LatencyMetric.E2E, 99, 2.0)))
    assert slos.limit_s(LatencyMetric.E2E) == 1.0
    assert slos.limit_s(LatencyMetric.TTFT) is None


@pytest.mark.parametrize(
    ("distribution", "smallest", "largest"),
    [
        (ConstantTokens(value=7), 7, 7),
        (UniformTokens(min=3, max=9), 3, 9),
        (LognormalTokens(median=10, p95=20, max=40), 1, 40),
        (ChoiceTokens(values=(5, 2, 8)), 2, 8),
        (ChoiceTokens(values=(5, 2, 8), weights=(1, 0, 1)), 5, 8),
    ],
)
def test_smallest_and_largest(distribution: TokenDistribution, smallest: int, largest: int) -> None:
    assert (distribution.smallest, distribution.largest) == (smallest, largest)


def test_a_dumped_requirement_is_read_again() -> None:
    requirement = Requirement(
        name="x",
        profile=profile(
            prompt_tokens=ChoiceTokens(values=(20, 30), weights=(1, 2)),
            arrival=Arrival(process=ArrivalProcess.GAMMA, rate_rps=2.0, cv=3.0),
            burst=Burst(rate_rps=6.0, duration_s=10.0),
        ),
        slo=Slos(latency=(latency(LatencyMetric.TTFT),), spread=(SpreadSlo(metric=LatencyMetric.E2E, limit=3),)),
        slo_burst=Slos(goodput_fraction_min=0.5),
    )
    assert Requirement.model_validate(requirement.model_dump(mode="json")) == requirement
    assert Requirement.model_validate_json(requirement.model_dump_json()) == requirement
