"""Comparisons of rounds: agreement by chance proves nothing, every run's circumstances are looked at, loads must be alike."""

from __future__ import annotations

from typing import Any

import pytest
from request_rows import row, table

from setpoint.record import (
    Candidate,
    Measured,
    Phase,
    PhaseMeasures,
    Report,
    RequestClass,
    SloReport,
    Summary,
    Validity,
    Verdict,
)
from setpoint.report.compare import SAME_IN_ALL, _if_comparable, compare_rounds
from setpoint.report.compare_figures import ComparedRun, compared_run
from setpoint.report.comparison import Better, Comparison, FigureComparison
from setpoint.report.files import Run


def a_run(ok: int, shed: int, **machine: Any) -> ComparedRun:
    """One request a second: so many served alike, then so many refused."""
    seconds, nothing = float(ok + shed), Summary(n=0)
    figures = PhaseMeasures(
        offered=ok + shed, ok=ok, late=0, shed=shed, failed=0, dropped=0, unfinished=0, duration_s=seconds, ttft_s=nothing,
        itl_s=nothing, max_gap_s=nothing, tpot_s=nothing, e2e_s=nothing, goodput_rps=ok / seconds,
        goodput_fraction=ok / seconds, output_tokens_per_s=1.0, prompt_tokens_per_s=1.0,
    )  # fmt: skip
    measured = Measured(sustained=figures)
    candidate = Candidate(name="c", config={"mode": "setpoint"}, measured=measured, slo=SloReport(verdict=Verdict.MET))
    report = Report(
        kind="measure",
        requirement=None,
        machine=machine,
        candidates=[candidate],
        chosen="c",
        why="",
        validity=Validity(valid=True),
    )
    rows = [row(float(at), [at + 0.1, at + 0.12]) for at in range(ok)]
    rows += [row(float(at), ended_s=at + 0.01, request_class=RequestClass.SHED) for at in range(ok, ok + shed)]
    return compared_run("run", Run(report, table(rows), None, {}))


def figure(found: Comparison, metric: str) -> FigureComparison:
    return next(each for each in found.figures if each.metric == metric)


def test_rounds_that_agree_by_chance_are_not_certain() -> None:
    """Seen: 9 of 10 good requests against 10 of 10 in each of three rounds was a certain difference."""
    found = compare_rounds([a_run(9, 1) for _ in range(3)], [a_run(10, 0) for _ in range(3)])
    share = figure(found, "goodput_fraction")
    assert share.difference == pytest.approx(0.1)
    assert share.difference_interval is not None
    assert share.difference_interval[0] is not None
    assert share.difference_interval[0] < 0.0
    assert share.verdict is Better.UNDECIDED
    rate = figure(found, "goodput")
    assert (rate.difference_interval, rate.verdict, rate.remark) == (None, Better.UNDECIDED, SAME_IN_ALL)


def test_many_requests_that_agree_are_enough() -> None:
    found = compare_rounds([a_run(30, 30) for _ in range(3)], [a_run(60, 0) for _ in range(3)])
    assert figure(found, "goodput_fraction").verdict is Better.B
    assert figure(found, "shed_fraction").verdict is Better.B


def test_the_circumstances_of_every_round_are_looked_at_and_told_once() -> None:
    """Seen: only the first run of each side was looked at."""
    here, there = a_run(9, 1, cpu="one"), a_run(9, 1, cpu="other")
    assert compare_rounds([here, here, here], [here, here, here]).warnings == []
    for runs_a, runs_b in (([here, here, here], [here, there, there]), ([here, there, here], [here, here, here])):
        warnings = compare_rounds(runs_a, runs_b).warnings
        assert warnings == ["The machines differ: cpu: one -> other."]


@pytest.mark.parametrize(
    ("unit", "a", "b", "verdict"),
    [
        ("/s", 10.0, 10.25, Better.UNDECIDED),
        ("/s", 8.0, 9.0, Better.B),
        ("tokens/s", 1000.0, 1020.0, Better.UNDECIDED),
        ("tokens/s", 1000.0, 1100.0, Better.B),
    ],
)
def test_a_rate_that_differs_no_more_than_the_load_shows_nothing(unit: str, a: float, b: float, verdict: Better) -> None:
    made = FigureComparison(
        phase=Phase.SUSTAINED,
        metric="goodput",
        statistic="",
        unit=unit,
        better="higher",
        a=a,
        b=b,
        difference=b - a,
        difference_interval=(0.1, 200.0),
        ratio=None,
        ratio_interval=None,
        verdict=Better.B,
        stands_alone=True,
    )
    found = _if_comparable(made, 10.0, 10.25)
    assert found.verdict is verdict
    assert (found.remark == "offered 10/s and 10.25/s") is (verdict is Better.UNDECIDED)
