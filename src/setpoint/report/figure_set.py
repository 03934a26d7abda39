"""All charts of a report, grouped as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from setpoint.record import Phase, Report
from setpoint.report.charts.distributions import distribution
from setpoint.report.charts.frame import Figure
from setpoint.report.charts.frontier import axes, frontier, slos_of
from setpoint.report.charts.samples import RequestSamples, StepSamples
from setpoint.report.charts.styles import Look, looks
from setpoint.report.charts.timeline import MOST_DOTS, NARROW, WIDE, Run, timeline
from setpoint.report.charts.tradeoff import (
    BATCH,
    TOKENS,
    Operating,
    StepCurve,
    latency_figure,
    operating_points,
    step_curves,
    throughput_figure,
)
from setpoint.report.verdicts import in_focus, is_streaming
from setpoint.report.words import read_requirement
from setpoint.requirement import LatencyMetric

PHASES = (Phase.SUSTAINED, Phase.BURST)


@dataclass(frozen=True, slots=True)
class Timeline:
    """One candidate's timeline for wide and narrow screens."""

    look: Look
    wide_svg: str
    narrow_svg: str
    note: str


@dataclass(frozen=True, slots=True)
class FigureSet:
    """Every chart; lists are empty and values ``None`` where the run has no data for them."""

    looks: dict[str, Look]
    frontier: dict[Phase, list[Figure]]
    distributions: dict[Phase, list[Figure]]
    timelines: list[Timeline]
    tradeoff: list[Figure]
    tradeoff_note: str


def _timelines(report: Report, shapes: dict[str, Look], runs: dict[str, Run]) -> list[Timeline]:
    """The candidate in focus first."""
    focus = in_focus(report)
    names = [focus.name] if focus is not None else []
    names += [candidate.name for candidate in report.candidates if candidate.name not in names]
    drawn = []
    for name in names:
        if len(runs[name].requests) == 0:
            continue
        wide_svg, left_out = timeline(runs[name], WIDE)
        narrow_svg, _ = timeline(runs[name], NARROW)
        note = f"More than {MOST_DOTS:,} requests of one class: only {MOST_DOTS:,} of them, evenly spaced, are drawn."
        drawn.append(Timeline(shapes[name], wide_svg, narrow_svg, note if left_out else ""))
    return drawn


def draw(report: Report, requests: pa.Table, steps: pa.Table | None) -> FigureSet:
    """Draw everything the tables allow. ``requests`` and ``steps`` have the columns of ``record``, all candidates."""
    requirement = read_requirement(report.requirement)
    streaming = is_streaming(report, requirement)
    shapes = looks(report)
    own_requests = {name: RequestSamples.read(requests, name) for name in shapes}
    own_steps = {name: StepSamples.read(steps, name) for name in shapes}
    metric = LatencyMetric.TTFT if streaming else LatencyMetric.E2E
    limits_s = {str(p): limit for p in PHASES if (limit := slos_of(requirement, p).limit_s(metric)) is not None}
    runs = {name: Run(shapes[name], own_requests[name], own_steps[name], str(metric), limits_s) for name in shapes}
    metrics = ["ttft", "itl"] if streaming else ["e2e"]
    if streaming and any(slo.metric == LatencyMetric.E2E for p in PHASES for slo in slos_of(requirement, p).latency):
        metrics.append("e2e")
    fronts = {
        phase: [
            drawn
            for index, axis in enumerate(axes(requirement, phase, streaming))
            if (drawn := frontier(report, shapes, phase, axis, index)) is not None
        ]
        for phase in PHASES
    }
    curves = {
        phase: [
            drawn
            for name in metrics
            if (drawn := distribution(report, shapes, own_requests, requirement, name, phase)) is not None
        ]
        for phase in PHASES
    }
    points, batch_measured = operating_points(report, shapes, own_requests, own_steps)
    return FigureSet(
        looks=shapes,
        frontier=fronts,
        distributions=curves,
        timelines=_timelines(report, shapes, runs),
        tradeoff=_tradeoff(points, step_curves(shapes, own_steps), streaming),
        tradeoff_note="" if batch_measured else "Without step records the configured most stands for the mean batch.",
    )


def _tradeoff(points: list[Operating], curves: list[StepCurve], streaming: bool) -> list[Figure]:
    if streaming:
        latencies = [
            latency_figure(points, "ITL", lambda found: found.itl_s, BATCH, "trade-itl-batch", curves),
            latency_figure(points, "ITL", lambda found: found.itl_s, TOKENS, "trade-itl-tokens"),
            latency_figure(points, "TTFT", lambda found: found.ttft_s, BATCH, "trade-ttft"),
        ]
    else:
        latencies = [
            latency_figure(points, "E2E", lambda found: found.e2e_s, BATCH, "trade-e2e-batch"),
            latency_figure(points, "E2E", lambda found: found.e2e_s, TOKENS, "trade-e2e-tokens"),
        ]
    figures = [throughput_figure(points, curves), *latencies]
    return [figure for figure in figures if figure is not None]
