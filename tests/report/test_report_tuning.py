"""The loop in a report: in words for the terminal, in sections on the page, and nothing where there was none."""

from __future__ import annotations

import io
from typing import Any

import pytest
from report_synthetic_run import synthetic_run
from rich.console import Console

from setpoint.record import Report
from setpoint.report.html import render_html
from setpoint.report.terminal import render_terminal
from setpoint.report.tuning_words import comparison_rows, comparison_words, iteration_rows, space_rows, summary_words

MACHINE = {
    "source": "physics",
    "words": "physics",
    "error": 0.45,
    "coefficients": {"base_s": 0.01, "token_s": 1e-4, "sequence_s": 1e-4, "kv_token_s": 0.0, "product_s": 0.0},
}
LEARNED = {**MACHINE, "source": "measured", "words": "900 steps of 1 measured run", "error": 0.05}


def figure(statistic: str, predicted: float, measured: float, *, metric: str = "ttft", agrees: bool = True) -> dict[str, Any]:
    error = predicted - measured if metric == "goodput_fraction" else predicted / measured - 1
    return {
        "phase": "sustained", "metric": metric, "statistic": statistic, "predicted": predicted, "measured": measured,
        "stated": [0.8 * predicted, 1.2 * predicted], "error": error, "agrees": agrees,
    }  # fmt: skip


def compared(measurement: int, learned_from: list[int]) -> dict[str, Any]:
    return {
        "candidate": "setpoint-32",
        "independent": bool(learned_from),
        "agrees": True,
        "source": "measured",
        "words": "900 steps of 1 measured run",
        "learned_from": learned_from,
        "measurement": measurement,
        "figures": [figure("p50", 0.1, 0.095), figure("min", 0.95, 0.97, metric="goodput_fraction")],
    }


def turn(number: int, candidate: str, action: str = "measure", **others: Any) -> dict[str, Any]:
    return {
        "number": number, "action": action, "candidate": candidate, "why": "Because.", "predicted_verdict": "met",
        "held_probability": 0.9, "comparison": compared(number, list(range(1, number))),
        "learned": {"before": MACHINE, "after": LEARNED, "speed": 1.25, "requests": {}}, "failure": None, **others,
    }  # fmt: skip


def tuning(**others: Any) -> dict[str, Any]:
    only = {"config": {}, "verdict": "missed", "held_probability": 0.1, "goodput_fraction": 0.5, "ttft_p95_s": 0.7}
    only |= {"itl_p99_s": 0.03, "e2e_p95_s": 2.0, "output_tokens_per_s": 120.0}
    return {
        "mode": "loop",
        "measurements": 2,
        "configurations": 3,
        "iterations": [turn(1, "static-8"), turn(2, "setpoint-32", "repeat")],
        "comparison": compared(2, [1]),
        "ended": {"settled": True, "why": "Nothing better is left.", "left": False},
        "space": [
            {"name": "never", "measured": 0, "chance": 0.0, **only},
            {"name": "maybe", "measured": 0, "chance": 0.04, **only},
            {"name": "setpoint-32", "measured": 1, "chance": 0.0, **only},
        ],
        **others,
    }


@pytest.fixture(scope="module")
def run() -> tuple[Report, Any, Any]:
    report, requests, steps = synthetic_run()
    return report.model_copy(update={"tuning": tuning()}), requests, steps


def test_a_turn_says_what_was_predicted_measured_and_learned() -> None:
    first, second = iteration_rows(tuning())
    assert (first.number, first.title, second.title) == ("1", "static-8", "setpoint-32 again")
    assert "TTFT P50 100\u00a0ms → 95.0\u00a0ms" in first.result
    assert "Goodput 95.0\u00a0% → 97.0\u00a0%; within what was stated" in first.result
    assert "25% slower than predicted from physics" in first.learned
    assert "error 45.0\u00a0% → 5.0\u00a0%" in first.learned
    assert "8 decodes 11.6\u00a0ms → 11.6\u00a0ms" in first.learned
    failed = tuning(iterations=[turn(1, "static-8", comparison=None, learned=None, failure="no server")])
    assert iteration_rows(failed)[0].result == "Failed: no server"


def test_it_says_what_the_prediction_was_made_from() -> None:
    assert "from the steps of measurement 1, and of no other" in comparison_words(tuning())
    repeat = tuning(iterations=[turn(1, "setpoint-32"), turn(2, "setpoint-32", "repeat")])
    assert "an earlier measurement of the same configuration" in comparison_words(repeat)
    assert "before anything was measured" in comparison_words(tuning(comparison=compared(1, [])))
    kept = compared(1, []) | {"independent": True}
    assert "what was kept of earlier runs" in comparison_words(tuning(comparison=kept))
    assert comparison_words(tuning(comparison=None)) == ""
    assert comparison_rows(tuning(comparison=None)) == []


def test_figures_are_told_with_what_was_stated() -> None:
    latency, goodput = comparison_rows(tuning())
    assert (latency.name, latency.error, latency.stated, latency.agrees) == ("TTFT P50", "+5.3 %", "80.0–120\u00a0ms", "yes")
    assert (goodput.name, goodput.error) == ("Goodput", "-2.0 points")


def test_what_was_only_forecast_is_told_by_its_chance() -> None:
    assert [(each.name, each.chance) for each in space_rows(tuning())] == [("maybe", "4.0\u00a0%"), ("never", "under 5 %")]
    assert summary_words(tuning()).startswith("2 measurements, 3 configurations forecast. Nothing better")
    assert "stopped by the user" in summary_words(tuning(ended=None))


def test_terminal_and_page_show_it(run: tuple[Report, Any, Any]) -> None:
    report, requests, steps = run
    stream = io.StringIO()
    render_terminal(report, Console(file=stream, width=80))
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "Predicted and measured: setpoint-32" in text
    assert "2. setpoint-32 again" in text
    page = render_html(report, requests, steps)
    for words in ('id="loop"', "Predicted and measured: setpoint-32", "Nothing better is left.", "maybe", 'href="#loop"'):
        assert words in page
    plain = render_html(report.model_copy(update={"tuning": None}), requests, steps)
    assert 'id="loop"' not in plain
    assert '"tuning"' in report.to_json()
    assert '"tuning"' not in report.model_copy(update={"tuning": None}).to_json()
