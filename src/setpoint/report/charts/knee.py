"""The knee: goodput and tail latency against the offered load, with the limit and where it is crossed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from setpoint.record import Phase, Report
from setpoint.report.charts.frame import HALF_WIDTH, LEFT, RIGHT, Figure, Panel
from setpoint.report.charts.scales import Scale, linear_scale, log_scale
from setpoint.report.charts.svg import Anchor, drawing, line, marker_path, polyline_path, rect, tag, text, words
from setpoint.report.format import interval_s, percent, rate, round_number, round_percent, round_seconds, seconds
from setpoint.report.verdicts import measures, statistic_s, summary
from setpoint.report.words import metric_name, read_requirement
from setpoint.requirement import Requirement

UPPER_TOP, UPPER_BOTTOM = 26.0, 206.0
LOWER_TOP, LOWER_BOTTOM = 250.0, 380.0
HEIGHT = 424.0
FARTHEST = 2.0
MARK_PX = 5.6
GOODPUT = "goodput"
LOOK = "m-setpoint"
USUAL = (("e2e", "p99"), ("ttft", "p99"))


@dataclass(frozen=True, slots=True)
class _Point:
    """One probe: its rate, the share of good samples and its interval, a latency and its interval, the verdict."""

    name: str
    rate_rps: float
    share: float
    share_interval: tuple[float, float]
    value_s: float | None
    value_interval_s: tuple[float, float] | None
    verdict: str


def knee_figure(report: Report) -> Figure | None:
    """The two panels of a knee search over one axis of offered requests/s; ``None`` if the report is of no search."""
    knee = report.knee
    if not knee or not knee.get("probes"):
        return None
    criteria = [str(name) for name in knee["criteria"]]
    place = criteria.index(GOODPUT) if GOODPUT in criteria else _place(criteria, str(knee["limited_by"]))
    requirement = read_requirement(report.requirement)
    metric, statistic = _latency(str(knee["limited_by"]), report)
    points = _points(report, knee, place, metric, statistic)
    if not points:
        return None
    highest = max(point.rate_rps for point in points)
    if knee["rate_rps"]:
        highest = min(highest, FARTHEST * knee["rate_rps"])
    drawn = [point for point in points if point.rate_rps <= highest]
    x = linear_scale([*(point.rate_rps for point in drawn), *_ends(knee)], LEFT, HALF_WIDTH - RIGHT)
    parts = [_crossing(x, knee), *_upper(x, knee, drawn, criteria[place], place, requirement)]
    parts += _lower(x, drawn, metric, statistic, requirement)
    heading = f"{'Goodput' if criteria[place] == GOODPUT else criteria[place]} and latency against offered load"
    said = " ".join(_tip(point, metric, statistic).replace("\n", ", ") + "." for point in points)
    svg = drawing("knee", HALF_WIDTH, HEIGHT, heading, f"{knee['words']} {said}", *parts, class_="half")
    return Figure(heading=heading, svg=svg, note=_note(knee, len(points) - len(drawn)))


def _place(criteria: list[str], name: str) -> int:
    return criteria.index(name) if name in criteria else 0


def _ends(knee: dict[str, Any]) -> list[float]:
    """What of the knee's interval is to be on the axis."""
    return [float(end) for end in knee["interval_rps"] if end] if knee["rate_rps"] else []


def _latency(limited_by: str, report: Report) -> tuple[str, str]:
    """The latency statistic that the knee hangs on, or a usual one."""
    metric, _, statistic = limited_by.partition(" ")
    wanted = [(metric, statistic), *USUAL]
    for candidate in report.candidates:
        found = measures(candidate, Phase.SUSTAINED)
        known = [one for one in wanted if statistic_s(found, *one) is not None] if metric and statistic else []
        if known:
            return known[0]
    known = [one for one in USUAL if any(statistic_s(measures(c, Phase.SUSTAINED), *one) for c in report.candidates)]
    return known[0] if known else USUAL[0]


def _points(report: Report, knee: dict[str, Any], place: int, metric: str, statistic: str) -> list[_Point]:
    candidates = {candidate.name: candidate for candidate in report.candidates}
    points = []
    for probe in knee["probes"]:
        good = probe["good"][place]
        if good["share"] is None or probe["name"] not in candidates:
            continue
        figures = measures(candidates[probe["name"]], Phase.SUSTAINED)
        found = summary(figures, metric) if figures is not None else None
        interval = getattr(found, f"{statistic}_ci", None)
        low, high = good["interval"]
        value_s = statistic_s(figures, metric, statistic)
        point = _Point(probe["name"], probe["rate_rps"], good["share"], (low, high), value_s, interval, probe["verdict"])
        points.append(point)
    return sorted(points, key=lambda point: point.rate_rps)


def _crossing(x: Scale, knee: dict[str, Any]) -> str:
    """The knee as a line through both panels, its interval as a band."""
    if not knee["rate_rps"]:
        return ""
    low, high = (x.at(end) for end in _ends(knee)[:2])
    at = x.at(knee["rate_rps"])
    side: Anchor = "end" if at > (x.start_px + x.end_px) / 2 else "start"
    label = text(at + (-6 if side == "end" else 6), UPPER_TOP - 12, f"knee {rate(knee['rate_rps'])}", f"name {LOOK}", side)
    band = rect(low, UPPER_TOP, high - low, LOWER_BOTTOM - UPPER_TOP, "phase p-burst")
    return band + line(at, UPPER_TOP - 8, at, LOWER_BOTTOM, f"line {LOOK}") + label


def _upper(
    x: Scale, knee: dict[str, Any], points: list[_Point], name: str, place: int, requirement: Requirement | None
) -> list[str]:
    least = _least_share(name, requirement)
    lows = [min(point.share_interval[0], 0.95 if least is None else least) for point in points]
    y = Scale("linear", max(0.0, min([*lows, 0.9]) - 0.03), 1.02, UPPER_BOTTOM, UPPER_TOP)
    panel = Panel(x, y, "requests/s", "share")
    title = "Goodput, share of offered" if name == GOODPUT else f"Share within the limit of {name}"
    parts = [text(panel.left, UPPER_TOP - 12, title, "axis"), panel.y_axis(_shares), panel.x_axis(lambda value: "")]
    if least is not None:
        parts += _floor(panel, least)
    curve = [point for point in knee["curve"] if x.holds(point["rate_rps"])]
    if curve:
        xs = x.px(np.array([point["rate_rps"] for point in curve]))
        ys = y.px(np.array([point["good"][place] for point in curve]))
        tip = "the server fitted to all probes, in the long run"
        parts.append(tag("path", d=polyline_path(xs, ys), class_=f"line thin {LOOK}", fill="none", data_tip=tip))
    for point in points:
        parts.append(_whisker(x.at(point.rate_rps), *(y.at(end) for end in point.share_interval)))
        parts.append(_mark(point, x.at(point.rate_rps), y.at(point.share), _tip(point, "", "")))
    return [panel.wrap(*parts)]


def _shares(share: float) -> str:
    return round_percent(share) if share <= 1.0 else ""


def _least_share(name: str, requirement: Requirement | None) -> float | None:
    """The share that has to be good by the criterion, from the requirement."""
    if requirement is None:
        return None
    if name == GOODPUT:
        return requirement.slo.goodput_fraction_min
    found = [slo for slo in requirement.slo.latency if f"{slo.metric} {slo.statistic}" == name]
    return found[0].percentile / 100.0 if found else None


def _floor(panel: Panel, least: float) -> list[str]:
    """A limit from below: what is under it is tinted."""
    at = panel.y.at(least)
    return [
        rect(panel.left, at, panel.right - panel.left, panel.bottom - at, "over"),
        line(panel.left, at, panel.right, at, "limit"),
        text(panel.left + 6, at + 14, f"at least {round_percent(least)}", "limit-text"),
    ]


def _lower(x: Scale, points: list[_Point], metric: str, statistic: str, requirement: Requirement | None) -> list[str]:
    known = [point for point in points if point.value_s is not None]
    limit_s = _limit_s(metric, statistic, requirement)
    reach = [level for point in known for level in (point.value_s, *(point.value_interval_s or ()))]
    reach += [limit_s] if limit_s is not None else []
    y = log_scale([level for level in reach if level is not None], LOWER_BOTTOM, LOWER_TOP)
    panel = Panel(x, y, "requests/s", "s")
    parts = [
        text(panel.left, LOWER_TOP - 10, f"{metric_name(metric)} {statistic.upper()}", "axis"),
        panel.y_axis(round_seconds, most=4),
        panel.x_axis(round_number, "Offered requests/s"),
    ]
    if limit_s is not None:
        parts.append(panel.limit_y(limit_s, f"limit {round_seconds(limit_s)}"))
    for point in known:
        at = x.at(point.rate_rps)
        if point.value_interval_s is not None:
            parts.append(_whisker(at, *(y.at(end) for end in point.value_interval_s)))
        parts.append(_mark(point, at, y.at(point.value_s or 0.0), _tip(point, metric, statistic)))
    return [panel.wrap(*parts)]


def _limit_s(metric: str, statistic: str, requirement: Requirement | None) -> float | None:
    slos = requirement.slo.latency if requirement is not None else ()
    return next((slo.limit_s for slo in slos if (str(slo.metric), slo.statistic) == (metric, statistic)), None)


def _whisker(x: float, one: float, other: float) -> str:
    class_ = f"whisker {LOOK}"
    ends = [line(x - 4, end, x + 4, end, class_) for end in (one, other)]
    return line(x, one, x, other, class_) + "".join(ends)


def _mark(point: _Point, x: float, y: float, tip: str) -> str:
    """Filled if the probe is shown to meet the requirement by itself, hollow otherwise; a triangle if it missed it."""
    kind = "mark" if point.verdict == "met" else "mark hollow"
    shape = marker_path("triangle" if point.verdict == "missed" else "circle", x, y, MARK_PX)
    return tag("path", tag("title", words(tip)), d=shape, class_=f"{kind} {LOOK}")


def _tip(point: _Point, metric: str, statistic: str) -> str:
    low, high = point.share_interval
    lines = [
        f"{point.name}: {point.verdict}",
        f"{percent(point.share)} good, 95 % interval {percent(low)} to {percent(high)}",
    ]
    if metric and point.value_s is not None:
        found = f"{metric_name(metric)} {statistic.upper()} {seconds(point.value_s)}"
        interval = f", 95 % interval {interval_s(point.value_interval_s)}" if point.value_interval_s else ""
        lines.append(found + interval)
    return "\n".join(lines)


def _note(knee: dict[str, Any], left_out: int) -> str:
    parts = ["Filled: a probe that is shown to meet the requirement by itself; triangle: shown to miss it; hollow: neither."]
    if knee["rate_rps"]:
        parts.append("Band: the knee's 95 % interval.")
    if knee["curve"]:
        parts.append(
            "Line: what the server fitted to all probes would show in the long run; a probe starts from an idle server."
        )
    if left_out:
        parts.append(
            f"{left_out} of the probes went over {FARTHEST:g} times the knee and {'is' if left_out == 1 else 'are'} not drawn."
        )
    return " ".join(parts)
