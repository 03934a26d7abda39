"""What ``setpoint init`` writes loads again and says what was asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.requirement import (
    Burst,
    LatencyMetric,
    LognormalTokens,
    Objective,
    Price,
    RequirementError,
    parse_requirement,
    render_requirement,
)


def test_rendered_requirement_loads_again() -> None:
    text = render_requirement(
        name="my-app",
        description="A test: with a colon",
        model="model.gguf",
        prompt_tokens={"median": 120, "p95": 400, "min": 20, "max": 800},
        output_tokens=64,
        shared_prefix_tokens=16,
        rate="2.5/s",
        burst_rate="3x",
        slo={"ttft": {"p95": "300ms"}, "spread": {"e2e": 3}, "goodput_fraction": "95%"},
        slo_burst={"ttft": {"p95": "1s"}},
        objective="min_latency",
        usd_per_hour=0.1,
    )
    requirement = parse_requirement(text, "req.yaml")
    assert requirement.name == "my-app"
    assert requirement.description == "A test: with a colon"
    assert requirement.profile.prompt_tokens == LognormalTokens(median=120, p95=400, min=20, max=800)
    assert requirement.profile.burst == Burst(rate_rps=7.5, duration_s=10.0)
    assert requirement.slo.limit_s(LatencyMetric.TTFT) == pytest.approx(0.3)
    assert requirement.slo_burst.limit_s(LatencyMetric.TTFT) == pytest.approx(1.0)
    assert requirement.objective is Objective.MIN_LATENCY
    assert requirement.price == Price(usd_per_hour=0.1)
    assert all("#" in line for line in text.splitlines() if line)


def test_defaults_are_a_requirement() -> None:
    assert parse_requirement(render_requirement(name="x"), "req.yaml").slo.declared() is False


def test_parameters_that_are_not_allowed_are_named() -> None:
    with pytest.raises(RequirementError, match=r"slo\.ttft\.p95: found \"300\"") as caught:
        render_requirement(name="x", slo={"ttft": {"p95": "300"}})
    assert caught.value.file_name == "requirement"


@given(name=st.text(min_size=1, max_size=40), description=st.text(max_size=80))
def test_any_text_survives_or_is_refused(name: str, description: str) -> None:
    try:
        text = render_requirement(name=name, description=description)
    except RequirementError:
        return
    requirement = parse_requirement(text, "req.yaml")
    assert requirement.name == " ".join(name.split())
    assert requirement.description == " ".join(description.split())
