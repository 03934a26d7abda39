"""The figures of a plan's page: Pareto frontier, load curves, latency against context length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from setpoint.plan.context import ContextCurve
from setpoint.plan.planner import Plan, Ranked
from setpoint.plan.words import probability, spare, usd_per_hour, usd_per_million
from setpoint.report.charts.frame import HALF_HEIGHT, HALF_WIDTH, Figure, Panel, half_box
from setpoint.report.charts.labels import Area, Mark, leader, place_labels
from setpoint.report.charts.scales import Scale, log_scale
from setpoint.report.charts.svg import Shape, drawing, line, marker_path, polyline_path, tag, text, words
from setpoint.report.format import round_number, round_seconds, seconds

COLOURS = 8
MARK_PX, RING_PX = 6.0, 11.5
MOST_NAMED = 8
MOST_CURVES = 6


def colours_of(plan: Plan) -> dict[str, str]:
    """A CSS class for each hardware, in the order of the ranking."""
    names = list(
        dict.fromkeys(each.option.shape.hardware for each in (*plan.ranked, *((plan.nearest,) if plan.nearest else ())))
    )
    return {name: f"hw-{index % COLOURS}" for index, name in enumerate(names)}


def pareto(ranked: Sequence[Ranked]) -> list[Ranked]:
    """Those that hold and that no other that holds betters in both price and latency, by price."""
    found: list[Ranked] = []
    priced = [each for each in ranked if each.holds and each.topology.usd_per_h is not None and np.isfinite(each.latency_s)]
    for each in sorted(priced, key=lambda one: (one.topology.usd_per_h or 0.0, one.latency_s)):
        if not found or each.latency_s < found[-1].latency_s:
            found.append(each)
    return found


def pareto_figure(plan: Plan) -> Figure | None:
    """Price against latency, one mark a candidate; the frontier joined by a line."""
    shown = [each for each in plan.ranked if each.topology.usd_per_h and np.isfinite(each.latency_s) and each.latency_s > 0]
    if not shown:
        return None
    left, right, top, bottom = half_box()
    panel = Panel(
        log_scale([each.topology.usd_per_h or 0.0 for each in shown], left, right, least_ratio=2.0),
        log_scale([each.latency_s for each in shown], bottom, top, least_ratio=3.0),
        "USD/h",
        "s",
    )
    colours = colours_of(plan)
    parts = [panel.y_axis(round_seconds), panel.x_axis(lambda value: f"${value:g}", "USD an hour")]
    frontier = pareto(shown)
    xs = panel.x.px([each.topology.usd_per_h or 0.0 for each in frontier])
    ys = panel.y.px([each.latency_s for each in frontier])
    parts.append(tag("path", d=polyline_path(xs, ys), class_="line quiet", fill="none", data_tip="Pareto frontier"))
    parts += [_mark(panel, each, colours, chosen=each is plan.chosen) for each in reversed(shown)]
    parts += _names(panel, plan, frontier, (left, top, right, bottom), colours)
    said = "; ".join(_tip(each).replace("\n", ", ") for each in shown)
    metric = "TTFT" if plan.asked.requirement.profile.streaming else "E2E"
    heading = f"Price against {metric} P95"
    svg = drawing("plan-pareto", HALF_WIDTH, HALF_HEIGHT, heading, said, panel.wrap(*parts), class_="half")
    note = "Hollow: inside its error bar or on a guess, or a limit does not hold. Line: the Pareto frontier of those that hold."
    return Figure(heading=heading, svg=svg, note=note)


def _mark(panel: Panel, each: Ranked, colours: dict[str, str], *, chosen: bool) -> str:
    x, y = panel.x.at(each.topology.usd_per_h or 0.0), panel.y.at(each.latency_s)
    colour = colours[each.option.shape.hardware]
    shape: Shape = "diamond" if each.option.serving.scheduler == "setpoint" else "triangle"
    kind = "mark" if each.holds and not each.headroom.within_error else "mark hollow"
    outline = marker_path(shape, x, y, MARK_PX)
    drawn = tag("path", tag("title", words(_tip(each))), d=outline, class_=f"{kind} {colour}")
    halo = tag("circle", cx=x, cy=y, r=RING_PX, class_=f"halo {colour}") if chosen else ""
    return halo + drawn


def _names(
    panel: Panel, plan: Plan, frontier: list[Ranked], box: tuple[float, float, float, float], colours: dict[str, str]
) -> list[str]:
    first: dict[str, Ranked] = {}
    for each in (*((plan.chosen,) if plan.chosen else ()), *frontier, *plan.ranked):
        if each.topology.usd_per_h and np.isfinite(each.latency_s) and each.latency_s > 0:
            first.setdefault(each.option.shape.hardware, each)
    named = list(first.values())[:MOST_NAMED]
    marks = [
        Mark(panel.x.at(each.topology.usd_per_h or 0.0), panel.y.at(each.latency_s), RING_PX, each.option.shape.hardware)
        for each in named
    ]
    left, top, right, bottom = box
    places = place_labels(marks, Area(left, top, right, bottom), [])
    return [
        leader(mark, place) + text(place.x, place.y, mark.name, f"name {colours[mark.name]}", place.anchor)
        for mark, place in zip(marks, places, strict=True)
    ]


def _tip(each: Ranked) -> str:
    return "\n".join(
        (
            each.name,
            f"{usd_per_hour(each.topology.usd_per_h)}, {usd_per_million(each.usd_per_good_request)} a million requests",
            f"P95 {seconds(each.latency_s)}, holds with probability {probability(each.headroom.met_probability)}",
            f"knee at {spare(each.headroom.knee_distance)} of the load, bound by {each.binding.bound}",
        )
    )


def load_figure(plan: Plan) -> Figure | None:
    """How near the limits are as the load grows: the worst limit of the best candidate of each hardware."""
    best: dict[str, Ranked] = {}
    for each in (*((plan.chosen,) if plan.chosen else ()), *plan.ranked, *((plan.nearest,) if plan.nearest else ())):
        best.setdefault(each.option.shape.hardware, each)
    shown = list(best.values())[:MOST_CURVES]
    if not shown or not plan.limits:
        return None
    left, right, top, bottom = half_box()
    x = Scale("log", 0.25, 4.0, left, right)
    loads = np.geomspace(0.25, 4.0, 120)
    curves = []
    for each in shown:
        rate = plan.asked.load_rps / each.topology.pool.replicas
        curves.append(np.clip(each.option.curve.excess(loads * rate, np.ones(len(loads))), 0.03, 30.0))
    y = log_scale([0.05, 10.0], bottom, top)
    panel = Panel(x, y, "x load", "x limit")
    colours = colours_of(plan)
    parts = [
        panel.y_axis(lambda value: f"{value:g}x"),
        panel.x_axis(lambda value: f"{value:g}x", "Load, times the offered one"),
    ]
    parts.append(panel.limit_y(1.0, "limit"))
    parts.append(line(x.at(1.0), top, x.at(1.0), bottom, "base"))
    for each, curve in zip(shown, curves, strict=True):
        colour = colours[each.option.shape.hardware]
        path = polyline_path(x.px(loads), y.px(curve))
        chosen = " chosen" if each is plan.chosen else ""
        parts.append(tag("path", d=path, class_=f"line {colour}{chosen}", fill="none", data_tip=each.name))
    said = "; ".join(f"{each.name}: knee at {spare(each.headroom.knee_distance)} of the load" for each in shown)
    heading = "How near the limits are as the load grows"
    svg = drawing("plan-load", HALF_WIDTH, HALF_HEIGHT, heading, said, panel.wrap(*parts), class_="half")
    return Figure(
        heading=heading, svg=svg, note="The worst of all limits, 1 being the limit; where a line crosses it is the knee."
    )


def context_figure(plan: Plan, curves: Sequence[ContextCurve]) -> Figure | None:
    """Seconds of a request against its context length, for as many under way as the plan has on a replica."""
    drawn = [curve for curve in curves if np.isfinite(curve.request_s).any()]
    if not drawn:
        return None
    left, right, top, bottom = half_box()
    values = np.concatenate([curve.request_s for curve in drawn])
    panel = Panel(
        log_scale(np.concatenate([curve.contexts for curve in drawn]), left, right),
        log_scale(values, bottom, top),
        "tokens",
        "s",
    )
    colours = colours_of(plan)
    parts = [panel.y_axis(round_seconds), panel.x_axis(round_number, "Context of each request, tokens")]
    for curve in drawn:
        colour = colours.get(curve.shape.hardware, "quiet")
        path = polyline_path(panel.x.px(curve.contexts), panel.y.px(curve.request_s))
        tip = f"{curve.shape.name}: {curve.under_way:.0f} under way, cache full at {curve.bends_at_tokens:,.0f} tokens"
        parts.append(tag("path", d=path, class_=f"line {colour}", fill="none", data_tip=tip))
        if panel.x.holds(curve.bends_at_tokens):
            at_s = float(np.interp(curve.bends_at_tokens, curve.contexts, curve.request_s))
            if np.isfinite(at_s):
                place = marker_path("circle", panel.x.at(curve.bends_at_tokens), panel.y.at(at_s), 4.5)
                parts.append(tag("path", tag("title", words(tip)), d=place, class_=f"mark {colour}"))
    said = "; ".join(f"{c.shape.name}: cache full from {c.bends_at_tokens:,.0f} tokens" for c in drawn)
    heading = "Latency against context length"
    svg = drawing("plan-context", HALF_WIDTH, HALF_HEIGHT, heading, said, panel.wrap(*parts), class_="half")
    note = "As many requests under way on a replica as the plan has there. Dots: from here on not all of them fit in the cache."
    return Figure(heading=heading, svg=svg, note=note)
