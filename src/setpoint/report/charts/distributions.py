"""Cumulative distributions of latencies, with the tail drawn wide because that is where limits are."""

from __future__ import annotations

import numpy as np

from setpoint.record import Phase, Report
from setpoint.report.charts.frame import HALF_HEIGHT, HALF_WIDTH, Figure, Panel, half_box
from setpoint.report.charts.frontier import slos_of
from setpoint.report.charts.samples import Floats, RequestSamples
from setpoint.report.charts.scales import log_scale, tail_scale
from setpoint.report.charts.styles import Look
from setpoint.report.charts.svg import drawing, polyline_path, tag, text, words
from setpoint.report.format import count, percent, round_percent, round_seconds, seconds
from setpoint.report.verdicts import measures, summary
from setpoint.report.words import metric_name
from setpoint.requirement import LatencySlo, Requirement

MOST_POINTS = 400
MARKED = (("p50", 0.50), ("p95", 0.95), ("p99", 0.99))


def _curve(panel: Panel, values_s: Floats, look: Look) -> tuple[str, bool]:
    """The curve of sorted ``values_s`` and whether points were left out; drawn evenly along the tail axis."""
    samples = len(values_s)
    if samples <= MOST_POINTS:
        ranks = np.arange(1, samples + 1)
    else:
        depth = np.linspace(0.0, np.log10(samples + 1), MOST_POINTS)
        ranks = np.unique(np.clip(np.ceil((1.0 - 10.0**-depth) * samples), 1, samples).astype(np.int64))
    shares = ranks / (samples + 1)
    drawn = ranks[shares <= panel.y.high]
    path = polyline_path(panel.x.px(values_s[drawn - 1]), panel.y.px(drawn / (samples + 1)))
    curve = tag(
        "path",
        d=path,
        class_=f"line {look.classes}",
        stroke_dasharray=look.pattern or None,
        data_tip=look.name,
        fill="none",
    )
    return curve, samples > MOST_POINTS


def _marks(panel: Panel, report: Report, looks: dict[str, Look], phase: Phase, metric: str) -> list[str]:
    parts = []
    for candidate in report.candidates:
        figures = measures(candidate, phase)
        found = summary(figures, metric) if figures is not None else None
        if found is None or candidate.measured is None:
            continue
        look = looks[candidate.name]
        for statistic, share in MARKED:
            value_s = getattr(found, statistic)
            if value_s is None or not panel.y.holds(share):
                continue
            tip = tag("title", words(f"{look.name}\n{metric_name(metric)} {statistic.upper()} {seconds(value_s)}"))
            parts.append(look.marker(panel.x.at(value_s), panel.y.at(share), 3.6, tip))
    return parts


def _limits(panel: Panel, slos: list[LatencySlo]) -> list[str]:
    """Each limit as a corner: the curve has to pass left of it at its percentile."""
    parts = []
    for slo in slos:
        share = slo.percentile / 100
        x, y = panel.x.at(slo.limit_s), panel.y.at(min(share, panel.y.high))
        parts.append(tag("path", d=f"M{x:.1f} {panel.top:.1f}V{y:.1f}", class_="limit", fill="none"))
        parts.append(tag("path", d=f"M{x:.1f} {y:.1f}V{panel.bottom:.1f}", class_="limit faint", fill="none"))
        parts.append(tag("circle", cx=x, cy=y, r=4.0, class_="limit-point"))
        near_end = x > panel.right - 130
        label = f"{slo.statistic.upper()} ≤ {round_seconds(slo.limit_s)}"
        parts.append(text(x + (-7 if near_end else 7), panel.bottom - 8, label, "limit-text", "end" if near_end else "start"))
    return parts


def _visible_low(samples: list[Floats]) -> list[float]:
    """Where a logarithmic axis may start: the smallest 0.5 % (and zero gaps) are drawn at its edge."""
    lows = []
    for values_s in samples:
        positive = values_s[values_s > 1e-5]
        if len(positive):
            lows.append(float(positive[int(len(positive) * 0.005)]))
    return lows


def distribution(
    report: Report,
    looks: dict[str, Look],
    samples: dict[str, RequestSamples],
    requirement: Requirement | None,
    metric: str,
    phase: Phase,
) -> Figure | None:
    """All candidates' distributions of ``metric`` (as ``RequestSamples.values_s`` has it); ``None`` without samples."""
    values = {name: found for name, own in samples.items() if len(found := own.values_s(metric, phase))}
    if not values:
        return None
    left, right, top, bottom = half_box()
    most = max(len(found) for found in values.values())
    slos = [slo for slo in slos_of(requirement, phase).latency if slo.metric == metric]
    y = tail_scale(most, bottom, top)
    highs = [float(found[min(len(found) - 1, int(len(found) * y.high))]) for found in values.values()]
    x = log_scale([*_visible_low(list(values.values())), *highs, *(slo.limit_s for slo in slos)], left, right)
    panel = Panel(x, y, "s", "share")
    parts = [panel.y_axis(round_percent), panel.x_axis(round_seconds, "", 5, lines=True)]
    thinned = False
    for name in sorted(values, key=lambda name: looks[name].chosen):
        curve, left_out = _curve(panel, values[name], looks[name])
        parts.append(curve)
        thinned |= left_out
    parts += _limits(panel, slos)
    parts += _marks(panel, report, looks, phase, metric)
    title = f"Cumulative distribution of {metric_name(metric)}, {phase} phase"
    described = "; ".join(
        f"{name}: {len(found):,} samples, median {seconds(float(np.median(found)))}" for name, found in values.items()
    )
    what = {"itl": "gaps", "max_gap": "streams"}.get(metric, "requests")
    least = min(len(found) for found in values.values())
    note = f"{count(most)} {what}" if least == most else f"{count(least)} to {count(most)} {what}"
    note += " a curve." if len(values) > 1 else "."
    if metric == "max_gap":
        note += _stall_note(report, phase)
    if thinned:
        note += f" At most {MOST_POINTS} points a curve are drawn, chosen evenly along the vertical axis."
    body = panel.wrap(*parts)
    svg = drawing(f"cdf-{metric}-{phase}", HALF_WIDTH, HALF_HEIGHT, title, described, body, class_="half")
    return Figure(heading=metric_name(metric), svg=svg, note=note)


def _stall_note(report: Report, phase: Phase) -> str:
    """The share of streams that stalled, in words, where one candidate is looked at."""
    figures = measures(report.candidates[0], phase) if len(report.candidates) == 1 else None
    if figures is None or figures.stalled_fraction is None or figures.stall_limit_s is None:
        return ""
    return f" {percent(figures.stalled_fraction)} of them had a gap over {round_seconds(figures.stall_limit_s)}."
