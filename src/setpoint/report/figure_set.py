"""All charts of a report, grouped as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from setpoint.record import Phase, Report
from setpoint.report.charts.distributions import distribution
from setpoint.report.charts.frame import Figure
from setpoint.report.charts.frontier import axes, frontier, slos_of
from setpoint.report.charts.knee import knee_figure
from setpoint.report.charts.samples import RequestSamples, ServerSamples, StepSamples
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
from setpoint.requirement import LatencyMetric, Requirement

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
    knee: Figure | None = None


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


def draw(report: Report, requests: pa.Table, steps: pa.Table | None, server: pa.Table | None = None) -> FigureSet:
    """Draw everything the tables allow. They have the columns of ``record``, all candidates in one table each."""
    requirement = read_requirement(report.requirement)
    streaming = is_streaming(report, requirement)
    shapes = looks(report)
    own_requests = {name: RequestSamples.read(requests, name) for name in shapes}
    own_steps = {name: StepSamples.read(steps, name) for name in shapes}
    runs = _runs(shapes, own_requests, own_steps, server, requirement, streaming=streaming)
    metrics = _distributed(report, requirement, streaming)
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
        knee=knee_figure(report),
    )


def _runs(
    shapes: dict[str, Look],
    requests: dict[str, RequestSamples],
    steps: dict[str, StepSamples | None],
    server: pa.Table | None,
    requirement: Requirement | None,
    *,
    streaming: bool,
) -> dict[str, Run]:
    """What the timeline of each candidate is drawn from."""
    metric = LatencyMetric.TTFT if streaming else LatencyMetric.E2E

    def limits_s(of: LatencyMetric) -> dict[str, float]:
        found = {str(phase): slos_of(requirement, phase).limit_s(of) for phase in PHASES}
        return {phase: limit for phase, limit in found.items() if limit is not None}

    return {
        name: Run(
            look,
            requests[name],
            steps[name],
            str(metric),
            limits_s(metric),
            server=ServerSamples.read(server, name),
            gap_limits_s=limits_s(LatencyMetric.ITL),
        )
        for name, look in shapes.items()
    }


def _distributed(report: Report, requirement: Requirement | None, streaming: bool) -> list[str]:
    """The latencies whose distributions are shown: all of them for one measurement, else what limits are on."""
    if not streaming:
        return ["e2e"]
    if report.kind == "measure":
        return ["ttft", "itl", "e2e", "max_gap"]
    limited = {slo.metric for phase in PHASES for slo in slos_of(requirement, phase).latency}
    return ["ttft", "itl", *(["e2e"] if LatencyMetric.E2E in limited else [])]


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
