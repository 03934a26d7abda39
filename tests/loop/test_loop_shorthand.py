"""Quantities as they are typed, and what is refused is refused with the option's name and what is allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from setpoint.loop.shorthand import FlagError, fraction, minutes_or_seconds, rate_rps, seconds, steps, tokens
from setpoint.requirement import (
    ChoiceTokens,
    ConstantTokens,
    LognormalTokens,
    TokenDistribution,
    UniformTokens,
)

DISTRIBUTION: TypeAdapter[TokenDistribution] = TypeAdapter(TokenDistribution)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("128", ConstantTokens(value=128)),
        ("64-256", UniformTokens(min=64, max=256)),
        ("64..256", UniformTokens(min=64, max=256)),
        ("32,64, 128", ChoiceTokens(values=(32, 64, 128))),
        ("median=100,p95=300", LognormalTokens(median=100, p95=300, min=1, max=900)),
        ("p95=300, median=100, min=10, max=500", LognormalTokens(median=100, p95=300, min=10, max=500)),
        ("median=100,p95=100", LognormalTokens(median=100, p95=100, min=1, max=101)),
    ],
)
def test_token_counts(text: str, expected: TokenDistribution) -> None:
    assert DISTRIBUTION.validate_python(tokens("prompt-tokens", text)) == expected


@pytest.mark.parametrize("text", ["", "many", "1.5", "10-", "median=100", "median=0,p95=3", "mean=3,p95=4", "1,x"])
def test_token_counts_that_are_none(text: str) -> None:
    with pytest.raises(FlagError, match=r"--prompt-tokens .*: allowed: a number such as 128"):
        tokens("prompt-tokens", text)


@pytest.mark.parametrize(("text", "value"), [("2/s", 2.0), ("2.5", 2.5), ("2.5/s", 2.5), ("90/min", 1.5), ("1e2", 100.0)])
def test_rates(text: str, value: float) -> None:
    assert rate_rps("rate", text) == value


def test_a_multiple_is_a_rate_only_where_there_is_something_to_multiply() -> None:
    assert rate_rps("burst-rate", "3x", multiple_of_rps=2.0) == 6.0
    with pytest.raises(FlagError, match="--rate 3x: allowed: a rate"):
        rate_rps("rate", "3x")


def test_steps_are_rates_with_their_durations() -> None:
    assert steps("steps", "2/s:30s, 90/min:1.5min") == [
        {"rate_rps": 2.0, "duration_s": 30.0},
        {"rate_rps": 1.5, "duration_s": 90.0},
    ]
    for text in ("2/s", "2/s:", "2/s:0s", ":30s", "fast:3s"):
        with pytest.raises(FlagError, match="--steps "):
            steps("steps", text)


def test_shares() -> None:
    assert fraction("prefix-hit-rate", "25%") == fraction("prefix-hit-rate", "0.25") == 0.25
    with pytest.raises(FlagError, match="--prefix-hit-rate 25: allowed: a fraction"):
        fraction("prefix-hit-rate", "25")


def test_a_budget_is_in_minutes() -> None:
    assert minutes_or_seconds("budget", "5m") == minutes_or_seconds("budget", "5min") == 300.0
    assert minutes_or_seconds("budget", "1.5m") == minutes_or_seconds("budget", "90") == 90.0
    for text in ("m", "0m", "-5m", "5mm"):
        with pytest.raises(FlagError, match="--budget "):
            minutes_or_seconds("budget", text)


@given(st.text(max_size=30))
def test_anything_is_read_or_refused_by_name(text: str) -> None:
    for read in (tokens, rate_rps, steps, fraction, seconds, minutes_or_seconds):
        refusal = ""
        try:
            read("option", text)
        except FlagError as error:
            refusal = str(error)
        assert not refusal or refusal.startswith("--option ")
