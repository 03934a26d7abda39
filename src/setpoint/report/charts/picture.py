"""A figure as an SVG file of its own: panels one below the other on one axis, drawn with the report's own charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from setpoint.report.charts.frame import LEFT, RIGHT, Format, Panel
from setpoint.report.charts.scales import Scale, linear_scale, log_scale
from setpoint.report.charts.svg import drawing, line, marker_path, polyline_path, tag, text
from setpoint.report.format import round_number
from setpoint.statistics import FloatArray

WIDTH, PANEL_HEIGHT, HEAD, GAP, FOOT = 720.0, 130.0, 66.0, 46.0, 46.0
KEY_PX, KEY_CHARACTER_PX = 44.0, 6.6
STYLE = """
svg { background: #ffffff; font-family: "Inter", "Segoe UI", Helvetica, Arial, sans-serif; }
text { font-size: 12px; fill: #565c66; } .heading { font-size: 16px; font-weight: 650; fill: #1a1c20; }
.grid { stroke: #ecece9; } .base { stroke: #565c66; opacity: 0.55; }
.limit { stroke: #b3261e; stroke-dasharray: 5 4; } .limit-text { fill: #b3261e; } .over { fill: #b3261e; opacity: 0.05; }
.line { stroke-width: 1.8; fill: none; } .marked { stroke: #3a45c4; stroke-dasharray: 2 3; } .marked-text { fill: #3a45c4; }
.one { stroke: #3a45c4; } .two { stroke: #b05a08; } .three { stroke: #0c7a70; } .four { stroke: #8a2f7d; }
.mark.one { fill: #3a45c4; } .mark.two { fill: #b05a08; } .mark.three { fill: #0c7a70; } .mark.four { fill: #8a2f7d; }
"""
LOOKS = ("one", "two", "three", "four")


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its name, and where it goes. NaN interrupts it. ``marks``: a mark at each point."""

    name: str
    xs: FloatArray
    ys: FloatArray
    marks: bool = True


@dataclass(frozen=True, slots=True)
class Strip:
    """One panel: the name of its axis, its lines (at most four, in the order of ``LOOKS``), a limit if there is one.

    log: equal ratios are equally far apart on its axis.
    """

    name: str
    series: Sequence[Series]
    form: Format = round_number
    limit: float | None = None
    limit_words: str = ""
    log: bool = False


def write_picture(
    file: Path,
    title: str,
    x_name: str,
    strips: Sequence[Strip],
    *,
    mark_x: float | None = None,
    mark_words: str = "",
    x_form: Format = round_number,
    log_x: bool = False,
) -> None:
    """Write the figure. ``mark_x``: a place on the axis that is marked through all panels. ``log_x``: a logarithmic axis."""
    every = np.concatenate([each.xs for strip in strips for each in strip.series])
    if log_x:
        x = log_scale(every, LEFT, WIDTH - RIGHT)
    else:
        x = linear_scale(every, LEFT, WIDTH - RIGHT, from_zero=bool(every.min() < 0.5 * every.max()))
    height = HEAD + len(strips) * (PANEL_HEIGHT + GAP) - GAP + FOOT
    parts = [tag("style", STYLE), tag("rect", x=0.0, y=0.0, width=WIDTH, height=height, fill="#ffffff")]
    parts += [text(LEFT, 24, title, "heading"), *_keys(strips)]
    for number, strip in enumerate(strips):
        top = HEAD + number * (PANEL_HEIGHT + GAP)
        parts += _panel(strip, x, top, last=number == len(strips) - 1, x_name=x_name, x_form=x_form)
    if mark_x is not None and x.holds(mark_x):
        at = x.at(mark_x)
        parts.append(line(at, HEAD, at, height - FOOT, "marked"))
        parts.append(text(at + 5, HEAD + 12, mark_words, "marked-text"))
    drawn = drawing("figure", WIDTH, height, title, title, *parts)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n", encoding="utf-8")


def _keys(strips: Sequence[Strip]) -> list[str]:
    """The names of the lines, once each."""
    names: dict[str, str] = {}
    for strip in strips:
        for look, each in zip(LOOKS, strip.series, strict=False):
            names.setdefault(each.name, look)
    parts, left = [], LEFT
    for name, look in names.items():
        parts += [line(left, 40, left + 22, 40, f"line {look}"), text(left + 28, 44, name)]
        left += KEY_PX + KEY_CHARACTER_PX * len(name)
    return parts if len(names) > 1 else []


def _panel(strip: Strip, x: Scale, top: float, *, last: bool, x_name: str, x_form: Format) -> list[str]:
    values = np.concatenate([each.ys for each in strip.series])
    reach = values if strip.limit is None else np.append(values, strip.limit)
    y = (log_scale if strip.log else linear_scale)(reach, top + PANEL_HEIGHT, top)
    panel = Panel(x, y)
    x_axis = panel.x_axis(x_form if last else lambda _: "", x_name if last else "", 10)
    parts = [panel.y_axis(strip.form, strip.name, 4), x_axis]
    if strip.limit is not None:
        parts.append(panel.limit_y(strip.limit, strip.limit_words))
    for look, each in zip(LOOKS, strip.series, strict=False):
        xs, ys = x.px(each.xs), y.px(each.ys)
        parts.append(tag("path", d=polyline_path(xs, ys), class_=f"line {look}"))
        if each.marks:
            known = np.isfinite(ys)
            parts += [
                tag("path", d=marker_path("circle", float(px), float(py), 4.0), class_=f"mark {look}")
                for px, py in zip(xs[known], ys[known], strict=True)
            ]
    return parts
