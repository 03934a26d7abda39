"""The latency-throughput frontier: what each candidate delivers, and how late its tail is."""

from __future__ import annotations

from dataclasses import dataclass

from setpoint.record import Phase, PhaseMeasures, Report
from setpoint.report.charts.frame import HALF_HEIGHT, HALF_WIDTH, Figure, Panel, half_box
from setpoint.report.charts.labels import Area, Mark, leader, place_labels
from setpoint.report.charts.scales import linear_scale, log_scale
from setpoint.report.charts.styles import Look
from setpoint.report.charts.svg import drawing, line, tag, text, words
from setpoint.report.format import interval_s, number, percent, rate, round_number, round_seconds, seconds
from setpoint.report.verdicts import measures, only_predicted, statistic_s, summary
from setpoint.report.words import metric_name
from setpoint.requirement import Requirement, Slos

RECORDED = ("p50", "p90", "p95", "p99")
MOST_PANELS = 4
MARK_PX, RING_PX = 6.2, 12.0
STREAMED = (("ttft", "p95"), ("itl", "p99"), ("ttft", "p99"), ("e2e", "p99"))
WHOLE = (("e2e", "p99"), ("e2e", "p50"), ("ttft", "p99"), ("queue_wait", "p99"))


@dataclass(frozen=True, slots=True)
class Axis:
    """One latency statistic to look at, with the limit declared for it, if any."""

    metric: str
    statistic: str
    limit_s: float | None

    @property
    def name(self) -> str:
        """As people write it: ``TTFT P95``."""
        return f"{metric_name(self.metric)} {self.statistic.upper()}"


def slos_of(requirement: Requirement | None, phase: Phase) -> Slos:
    """The limits that hold in ``phase``."""
    if requirement is None:
        return Slos()
    return requirement.slo_burst if phase is Phase.BURST else requirement.slo


def axes(requirement: Requirement | None, phase: Phase, streaming: bool) -> list[Axis]:
    """The statistics worth a panel: those with a limit in any phase first, then the usual ones."""
    limits = {
        (str(slo.metric), slo.statistic): slo.limit_s
        for slo in slos_of(requirement, phase).latency
        if slo.statistic in RECORDED
    }
    wanted = list(limits)
    for other in (Phase.SUSTAINED, Phase.BURST):
        wanted += [(str(slo.metric), slo.statistic) for slo in slos_of(requirement, other).latency if slo.statistic in RECORDED]
    wanted += list(STREAMED if streaming else WHOLE)
    unique = list(dict.fromkeys(wanted))[:MOST_PANELS]
    return [Axis(metric, statistic, limits.get((metric, statistic))) for metric, statistic in unique]


@dataclass(frozen=True, slots=True)
class _Point:
    look: Look
    figures: PhaseMeasures
    value_s: float
    interval_s: tuple[float, float] | None
    predicted: bool


def _points(report: Report, looks: dict[str, Look], phase: Phase, axis: Axis) -> list[_Point]:
    points = []
    for candidate in report.candidates:
        figures = measures(candidate, phase)
        value_s = statistic_s(figures, axis.metric, axis.statistic)
        if figures is None or value_s is None:
            continue
        found = summary(figures, axis.metric)
        interval = found.p99_ci if found is not None and axis.statistic == "p99" else None
        points.append(_Point(looks[candidate.name], figures, value_s, interval, only_predicted(candidate)))
    return points


def _tip(point: _Point, axis: Axis) -> str:
    lines = [
        point.look.name + (" (predicted)" if point.predicted else ""),
        f"{axis.name} {seconds(point.value_s)}"
        + (f", 95 % interval {interval_s(point.interval_s)}" if point.interval_s else ""),
        f"{number(point.figures.output_tokens_per_s)} tokens/s",
        f"goodput {rate(point.figures.goodput_rps)}, {percent(point.figures.goodput_fraction)} of offered",
    ]
    return "\n".join(lines)


def _draw_point(panel: Panel, point: _Point, axis: Axis) -> str:
    x, y = panel.x.at(point.figures.output_tokens_per_s), panel.y.at(point.value_s)
    parts = []
    if point.interval_s is not None:
        low, high = (panel.y.at(end) for end in point.interval_s)
        classes = f"whisker {point.look.classes}"
        parts += [line(x, low, x, high, classes), line(x - 4, low, x + 4, low, classes)]
        parts.append(line(x - 4, high, x + 4, high, classes))
    if point.look.chosen:
        parts.append(tag("circle", cx=x, cy=y, r=RING_PX, class_=f"halo {point.look.classes}"))
    kind = "mark hollow" if point.predicted else "mark"
    parts.append(point.look.marker(x, y, MARK_PX, tag("title", words(_tip(point, axis))), class_=kind))
    return "".join(parts)


def frontier(report: Report, looks: dict[str, Look], phase: Phase, axis: Axis, index: int) -> Figure | None:
    """One panel: output tokens/s against one latency statistic; ``None`` if no candidate has the figure."""
    points = _points(report, looks, phase, axis)
    if not points:
        return None
    left, right, top, bottom = half_box()
    rates = [point.figures.output_tokens_per_s for point in points]
    reach = [point.value_s for point in points] + [end for p in points for end in p.interval_s or ()]
    reach += [axis.limit_s] if axis.limit_s is not None else []
    panel = Panel(
        linear_scale(rates, left, right, from_zero=min(rates) < 0.6 * max(rates)),
        log_scale(reach, bottom, top),
        "tokens/s",
        "s",
    )
    parts = [panel.y_axis(round_seconds), panel.x_axis(round_number, "Output tokens/s")]
    if axis.limit_s is not None:
        parts.append(panel.limit_y(axis.limit_s, f"limit {round_seconds(axis.limit_s)}"))
    ordered = sorted(points, key=lambda point: point.look.chosen)
    parts += [_draw_point(panel, point, axis) for point in ordered]
    marks = [
        Mark(
            panel.x.at(p.figures.output_tokens_per_s),
            panel.y.at(p.value_s),
            RING_PX if p.look.chosen else MARK_PX + 1,
            p.look.label,
        )
        for p in ordered
    ]
    reserved = []
    if axis.limit_s is not None:
        level = panel.y.at(axis.limit_s)
        reserved = [Area(left, level - 18, left + 90, level), Area(left, level - 1, right, level + 1)]
    places = place_labels(marks, Area(left, top, right, bottom), reserved)
    parts += [leader(mark, place) for mark, place in zip(marks, places, strict=True)]
    for point, place in zip(ordered, places, strict=True):
        parts.append(text(place.x, place.y, point.look.label, f"name {point.look.classes}", place.anchor))
    title = f"{axis.name} against output tokens per second, {phase} phase"
    said = "; ".join(_tip(point, axis).replace("\n", ", ") for point in points)
    limit = f" Limit {round_seconds(axis.limit_s)}." if axis.limit_s is not None else ""
    svg = drawing(f"frontier-{phase}-{index}", HALF_WIDTH, HALF_HEIGHT, title, f"{said}.{limit}", *parts, class_="half")
    return Figure(heading=axis.name, svg=svg)
