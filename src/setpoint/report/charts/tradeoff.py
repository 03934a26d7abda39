"""The structural trade-off: what a bigger batch gives in tokens/s, and what it costs in latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from setpoint.record import Phase, PhaseMeasures, Report, Summary
from setpoint.report.charts.frame import HALF_HEIGHT, HALF_WIDTH, Figure, Panel, half_box
from setpoint.report.charts.samples import Floats, RequestSamples, StepSamples
from setpoint.report.charts.scales import linear_scale, log_scale
from setpoint.report.charts.styles import Look
from setpoint.report.charts.svg import drawing, line, polyline_path, tag, words
from setpoint.report.format import number, round_number, round_seconds, seconds
from setpoint.report.verdicts import measures

LEAST_STEPS = 5
BATCH, TOKENS = "Mean running requests", "Output tokens/s"
Pick = Callable[[PhaseMeasures], Summary]


@dataclass(frozen=True, slots=True)
class Operating:
    """Where one candidate worked in one phase: its mean batch and its figures."""

    look: Look
    phase: Phase
    batch: float
    figures: PhaseMeasures


@dataclass(frozen=True, slots=True)
class StepCurve:
    """Median time of a candidate's decode steps (no prefill in them) by the number of sequences in the step."""

    look: Look
    sizes: Floats
    times_s: Floats


def operating_points(
    report: Report,
    looks: Mapping[str, Look],
    requests: Mapping[str, RequestSamples],
    steps: Mapping[str, StepSamples | None],
) -> tuple[list[Operating], bool]:
    """All candidates and phases with figures, and whether their batches were measured.

    The batch is the mean of running sequences weighted by step time; without steps the configured most stands for it.
    """
    points, measured = [], True
    for candidate in report.candidates:
        own = steps.get(candidate.name)
        spans = {span.phase: span for span in requests[candidate.name].spans()}
        for phase in (Phase.SUSTAINED, Phase.BURST):
            figures = measures(candidate, phase)
            if figures is None:
                continue
            batch = own.mean_running(spans.get(phase)) if own is not None else None
            if batch is None:
                most = candidate.config.get("max_running")
                batch = float(most) if isinstance(most, int | float) else None
                measured = False
            if batch is not None and batch > 0:
                points.append(Operating(looks[candidate.name], phase, batch, figures))
    return points, measured


def step_curves(looks: Mapping[str, Look], steps: Mapping[str, StepSamples | None]) -> list[StepCurve]:
    """One curve a candidate that has decode steps; a size needs ``LEAST_STEPS`` steps to be on it."""
    curves = []
    for name, own in steps.items():
        if own is None:
            continue
        took_s = own.end_s - own.start_s
        decode = (own.prefill_tokens == 0) & (own.sequences > 0) & (took_s > 0)
        sizes, amounts = np.unique(own.sequences[decode], return_counts=True)
        sizes = sizes[amounts >= LEAST_STEPS]
        medians = [float(np.median(took_s[decode & (own.sequences == size)])) for size in sizes]
        if medians:
            curves.append(StepCurve(looks[name], sizes, np.array(medians)))
    return curves


def _curve(panel: Panel, curve: StepCurve, values: Floats) -> str:
    path = polyline_path(panel.x.px(curve.sizes), panel.y.px(values))
    dash = curve.look.pattern or None
    tip = f"{curve.look.name}, decode steps"
    return tag("path", d=path, class_=f"line thin {curve.look.classes}", fill="none", stroke_dasharray=dash, data_tip=tip)


def _tip(point: Operating, name: str = "", found: Summary | None = None) -> str:
    latency = f"\n{name} P50 {seconds(found.p50)}, P99 {seconds(found.p99)}" if found is not None else ""
    tokens = number(point.figures.output_tokens_per_s)
    return f"{point.look.name}, {point.phase}{latency}\n{number(point.batch)} running on average, {tokens} tokens/s"


def _mark(point: Operating, x: float, y: float, tip: str) -> str:
    """The candidate's marker: filled for the sustained phase, hollow for the burst."""
    class_ = "mark hollow" if point.phase is Phase.BURST else "mark"
    return point.look.marker(x, y, 5.6, tag("title", words(tip)), class_=class_)


def _range(panel: Panel, x: float, found: Summary, point: Operating, tip: str) -> str:
    """P50 to P99 as a bar: the marker at P50, a cap at P99."""
    if found.p50 is None:
        return ""
    low, parts = panel.y.at(found.p50), []
    if found.p99 is not None:
        high, classes = panel.y.at(found.p99), f"range {point.look.classes}"
        parts += [line(x, low, x, high, classes), line(x - 6, high, x + 6, high, classes)]
    parts.append(_mark(point, x, low, tip))
    return "".join(parts)


def throughput_figure(points: list[Operating], curves: list[StepCurve]) -> Figure | None:
    """Output tokens/s over the batch: marks for whole candidates, lines for their decode steps alone."""
    if not points:
        return None
    left, right, top, bottom = half_box()
    rates = [curve.sizes / curve.times_s for curve in curves]
    batches = np.concatenate([[point.batch for point in points], *(curve.sizes for curve in curves)])
    tokens = np.concatenate([[point.figures.output_tokens_per_s for point in points], *rates])
    panel = Panel(linear_scale(batches, left, right), linear_scale(tokens, bottom, top), "running", "tokens/s")
    parts = [panel.y_axis(round_number), panel.x_axis(round_number, BATCH)]
    parts += [_curve(panel, curve, rate) for curve, rate in zip(curves, rates, strict=True)]
    for point in points:
        x, y = panel.x.at(point.batch), panel.y.at(point.figures.output_tokens_per_s)
        parts.append(_mark(point, x, y, _tip(point)))
    heading = "Output tokens/s over batch size"
    said = "; ".join(_tip(point).replace("\n", ", ") for point in points)
    svg = drawing("trade-throughput", HALF_WIDTH, HALF_HEIGHT, heading, said, panel.wrap(*parts), class_="half")
    note = (
        "Lines: decode steps alone, sequences / median step time. The marks are under them where prompts took their share."
        if curves
        else ""
    )
    return Figure(heading=heading, svg=svg, note=note)


def latency_figure(
    points: list[Operating], name: str, pick: Pick, x_name: str, key: str, curves: list[StepCurve] | None = None
) -> Figure | None:
    """P50 to P99 of a latency for every candidate over its mean batch (``BATCH``) or its tokens/s (``TOKENS``).

    ``curves`` are drawn too: the time of a decode step is what ITL would be if no prompt were ever in the way.
    """
    points = [point for point in points if pick(point.figures).p50 is not None]
    if not points:
        return None
    curves = curves or []
    left, right, top, bottom = half_box()
    xs = [point.batch if x_name == BATCH else point.figures.output_tokens_per_s for point in points]
    levels = [level for p in points for level in (pick(p.figures).p50, pick(p.figures).p99) if level is not None]
    panel = Panel(
        linear_scale(np.concatenate([xs, *(curve.sizes for curve in curves)]), left, right),
        log_scale(np.concatenate([levels, *(curve.times_s for curve in curves)]), bottom, top),
        "running" if x_name == BATCH else "tokens/s",
        "s",
    )
    parts = [panel.y_axis(round_seconds), panel.x_axis(round_number, x_name)]
    parts += [_curve(panel, curve, curve.times_s) for curve in curves]
    for point, x in zip(points, xs, strict=True):
        found = pick(point.figures)
        parts.append(_range(panel, panel.x.at(x), found, point, _tip(point, name, found)))
    heading = f"{name} P50 to P99 over {'batch size' if x_name == BATCH else 'output tokens/s'}"
    said = "; ".join(_tip(point, name, pick(point.figures)).replace("\n", ", ") for point in points)
    svg = drawing(key, HALF_WIDTH, HALF_HEIGHT, heading, said, panel.wrap(*parts), class_="half")
    note = f"Lines: median time of a decode step, sizes seen in at least {LEAST_STEPS} steps." if curves else ""
    return Figure(heading=heading, svg=svg, note=note)
