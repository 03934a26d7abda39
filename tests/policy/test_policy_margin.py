"""A margin learned from errors: it comes to the share of misses aimed at, and is not driven up by what it cannot help."""

from __future__ import annotations

import numpy as np
import pytest

from setpoint.policy.margin import LEAST, MOST, START, LearnedMargin


def test_misses_widen_and_hits_narrow() -> None:
    margin = LearnedMargin()
    margin.learn(forecast_s=0.9, actual_s=1.2, limit_s=1.0)
    assert margin.share > START
    for _ in range(5000):
        margin.learn(forecast_s=0.9, actual_s=0.9, limit_s=1.0)
    assert margin.share == pytest.approx(LEAST)


def test_the_long_run_share_of_misses_is_the_one_aimed_at() -> None:
    dice = np.random.default_rng(3)
    margin = LearnedMargin(miss_rate=0.05)
    missed = []
    for _ in range(20_000):
        error = 0.1 * abs(dice.standard_normal())
        missed.append(error > margin.share)
        margin.learn(forecast_s=0.8, actual_s=0.8 + error, limit_s=1.0)
    assert np.mean(missed[2000:]) == pytest.approx(0.05, abs=0.01)


def test_what_was_far_from_the_limit_teaches_nothing() -> None:
    margin = LearnedMargin()
    margin.learn(forecast_s=0.2, actual_s=0.6, limit_s=1.0)
    assert margin.share == START


def test_a_machine_that_stands_still_now_and_then_does_not_refuse_everybody() -> None:
    """Seen: steps of 18 ms, one in 500 over 60 ms whatever was in it; the margin went to its bound and nobody got in."""
    free, binding = LearnedMargin(0.25, least=0.25, rate=0.05), LearnedMargin(0.25, least=0.25, rate=0.05, binding=True)
    for step in range(20_000):
        for margin in (free, binding):
            margin.learn(forecast_s=0.018, actual_s=0.080 if step % 100 == 0 else 0.018, limit_s=0.060)
    assert free.share > 0.5
    assert binding.share == 0.25
    for _ in range(40):
        binding.learn(forecast_s=0.044, actual_s=0.080, limit_s=0.060)
    assert binding.share == pytest.approx(MOST), "what a wider margin would have helped still widens it"


def test_misses_in_a_row_have_one_cause() -> None:
    """Seen: five steps in the first second, which the model did not know yet, and half of every gap was lost for minutes."""
    margin = LearnedMargin(0.25, least=0.25, miss_rate=0.001, rate=0.05, binding=True, rest=10)
    for _ in range(11):
        margin.learn(forecast_s=0.040, actual_s=0.070, limit_s=0.060)
    assert margin.share == pytest.approx(0.25 + 0.05 * 0.999)
    margin.learn(forecast_s=0.040, actual_s=0.070, limit_s=0.060)
    assert margin.share == pytest.approx(0.25 + 2 * 0.05 * 0.999), "one that goes on widens it again"


def test_who_was_let_in_though_it_could_not_be_in_time_teaches_nothing() -> None:
    margin = LearnedMargin()
    for _ in range(100):
        margin.learn(forecast_s=0.04, actual_s=0.06, limit_s=0.01)
    assert margin.share == START
