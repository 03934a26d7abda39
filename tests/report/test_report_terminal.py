"""The terminal report at 80 columns, in a pipe, with hostile names and with nothing known."""

from __future__ import annotations

import io

import pytest
from report_synthetic_run import CONFIGS, bare_report, hostile_report, synthetic_run
from rich.console import Console

from setpoint.record import Measured, Report, Validity
from setpoint.report.terminal import render_terminal


def printed(report: Report, width: int = 80, encoding: str = "utf-8") -> str:
    """What a pipe of ``width`` columns gets."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    render_terminal(report, Console(file=stream, width=width))
    return raw.getvalue().decode(encoding)


@pytest.fixture(scope="module")
def tune() -> Report:
    """A tune of five candidates of which one meets the requirement."""
    return synthetic_run()[0]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_fits_its_width_and_needs_no_colour(tune: Report, width: int) -> None:
    text = printed(tune, width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text


def test_names_every_candidate_on_one_line_with_its_verdict(tune: Report) -> None:
    lines = printed(tune).splitlines()
    for name in CONFIGS:
        row = next(line for line in lines if name in line and ("missed" in line or "met" in line))
        assert row.startswith("> ") == (name == tune.chosen)


def test_shows_the_checks_of_the_chosen_one_and_why(tune: Report) -> None:
    text = printed(tune)
    assert "The requirement is met" in text
    assert "Limits of setpoint-32" in text
    assert "≤ 500 ms" in text
    assert "≥ 90 %" in text
    assert "meets every limit and has the highest goodput" in text


def test_losers_get_a_line_each() -> None:
    report = synthetic_run()[0]
    why = "setpoint-32 was chosen. immediate lost: it is slow. static-8 lost: it waits."
    lines = printed(report.model_copy(update={"why": why})).splitlines()
    assert "setpoint-32 was chosen." in [line.strip() for line in lines]
    assert "immediate lost: it is slow." in [line.strip() for line in lines]
    assert "static-8 lost: it waits." in [line.strip() for line in lines]


@pytest.mark.parametrize("width", [80, 120])
def test_one_candidate_is_shown_phase_by_phase_with_a_row_a_latency(width: int) -> None:
    report = synthetic_run(names=("continuous-8",))[0]
    assert report.kind == "measure"
    lines = printed(report, width).splitlines()
    assert max(map(len, lines)) <= width
    figures = report.candidates[0].measured
    assert figures is not None
    assert figures.burst is not None
    headings = [line for line in lines if "requests offered" in line]
    assert [line.split()[0] for line in headings] == ["Sustained", "Burst"]
    rows = [line.split() for line in lines if line.startswith("TTFT ") and "≤" not in line]
    assert [row[1] for row in rows] == [str(figures.sustained.ttft_s.n), str(figures.burst.ttft_s.n)]
    assert f"{figures.burst.late} late" in "\n".join(lines)


def test_from_the_send_is_shown_where_it_differs() -> None:
    report = synthetic_run(names=("continuous-8",))[0]
    measured = report.candidates[0].measured
    assert measured is not None
    same = measured.sustained.model_copy(update={"ttft_from_send_s": measured.sustained.ttft_s})
    less = same.ttft_s.model_copy(update={"p99": 0.001})
    for figures, shown in ((same, 0), (same.model_copy(update={"ttft_from_send_s": less}), 1)):
        candidate = report.candidates[0].model_copy(update={"measured": Measured(sustained=figures)})
        assert printed(report.model_copy(update={"candidates": [candidate]})).count("from send") == shown


def test_ascii_pipe_gets_ascii(tune: Report) -> None:
    text = printed(tune, encoding="ascii")
    assert "<= 500 ms" in text
    assert text.isascii()


def test_names_are_neither_markup_nor_control_codes() -> None:
    text = printed(hostile_report()[0])
    assert "[bold red]" in text.replace("\n", "")
    assert "\x1b" not in text
    assert "\x07" not in text


def test_invalid_run_says_so_first(tune: Report) -> None:
    report = tune.model_copy(update={"validity": Validity(valid=False, reasons=["The load generator was late."])})
    text = printed(report)
    assert text.index("Invalid run") < text.index("The load generator was late.") < text.index("Sustained")


@pytest.mark.parametrize("candidates", [0, 1, 3])
def test_nothing_known_still_prints(candidates: int) -> None:
    text = printed(bare_report(candidates)[0])
    assert "Inconclusive" in text or "missed" in text
