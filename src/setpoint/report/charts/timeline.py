"""The run over time: arrivals, requests in flight, each request's latency, and what the engine did meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from setpoint.record import RequestClass
from setpoint.report.charts.frame import BOTTOM, LEFT, RIGHT, Format, Panel, thin
from setpoint.report.charts.samples import Floats, RequestSamples, Span, StepSamples
from setpoint.report.charts.scales import Scale, linear_scale, log_scale
from setpoint.report.charts.series import bin_width_s, in_flight, per_second, slots, stairs
from setpoint.report.charts.styles import Look
from setpoint.report.charts.svg import dots_path, drawing, line, polyline_path, rect, tag, text
from setpoint.report.format import round_number, round_percent, round_seconds
from setpoint.report.words import metric_name

MOST_DOTS = 1500
WIDE, NARROW = 1080.0, 400.0
HEADROOM, LOW_PANEL, DOT_PANEL, SPACE = 22.0, 74.0, 176.0, 40.0
DRAWN_CLASSES = (RequestClass.OK, RequestClass.LATE, RequestClass.UNFINISHED, RequestClass.FAILED)
WITHOUT_ANSWER = (RequestClass.SHED, RequestClass.FAILED, RequestClass.DROPPED, RequestClass.UNFINISHED)
UNLIMITED_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class Run:
    """One candidate's run and what to show of it: ``metric`` is ``ttft`` or ``e2e``, with its limits by phase."""

    look: Look
    requests: RequestSamples
    steps: StepSamples | None
    metric: str
    limits_s: dict[str, float]

    @property
    def end_s(self) -> float:
        """End of the time axis."""
        return max(self.requests.end_s(), 1e-3)


class _Sheet:
    """Panels one below the other on one time axis; remembers how far down it has come."""

    def __init__(self, run: Run, width: float) -> None:
        self.x = Scale("linear", 0.0, run.end_s, LEFT, width - RIGHT)
        self.slots = int((self.x.end_px - self.x.start_px) / 2)
        self.bottom = HEADROOM
        self.parts: list[str] = []
        self.last: Panel | None = None

    def room(self, height: float) -> tuple[float, float]:
        """Lower and upper edge of the next panel."""
        top = self.bottom + (SPACE if self.last is not None else 30.0)
        self.bottom = top + height
        return self.bottom, top

    def add(self, y: Scale, name: str, unit: str, form: Format, ticks: int, *children: str) -> Panel:
        """A panel over the room last taken, its grid below ``children``."""
        panel = Panel(self.x, y, "s", unit)
        axis = panel.y_axis(form, name, ticks)
        base = line(panel.left, panel.bottom, panel.right, panel.bottom, "base")
        self.parts.append(panel.wrap(axis, base, *children))
        self.last = panel
        return panel

    def curve(self, y: Scale, times_s: Floats, values: Floats, class_: str, name: str) -> str:
        """A step line."""
        xs, ys = stairs(self.x.px(times_s), y.px(values), self.x.end_px)
        return tag("path", d=polyline_path(xs, ys), class_=f"line {class_}", fill="none", data_tip=name)

    def area(self, y: Scale, times_s: Floats, values: Floats, class_: str, name: str) -> str:
        """A step line filled down to the base."""
        if len(times_s) == 0:
            return ""
        xs, ys = stairs(self.x.px(times_s), y.px(values), self.x.end_px)
        path = f"M{xs[0]:.1f} {y.start_px:.1f}L{polyline_path(xs, ys)[1:]}V{y.start_px:.1f}z"
        return tag("path", d=path, class_=f"area {class_}", data_tip=name)


def _arrivals(sheet: _Sheet, run: Run) -> None:
    width_s = bin_width_s(run.end_s)
    times_s, rates = per_second(run.requests.intended_s, run.end_s, width_s)
    bottom, top = sheet.room(LOW_PANEL)
    y = linear_scale(rates, bottom, top)
    sheet.add(y, "Arrivals, requests/s", "/s", round_number, 3, sheet.area(y, times_s, rates, "quiet", "arrivals"))


def _in_flight(sheet: _Sheet, run: Run) -> None:
    series = [("in flight, seen by the client", "quiet-line", *in_flight(run.requests))]
    if run.steps is not None:
        series.append(("running in the engine", run.look.classes, run.steps.start_s, run.steps.running))
        series.append(("waiting in the engine", "second", run.steps.start_s, run.steps.waiting))
    reduced = [(name, class_, *slots(t, v, run.end_s, sheet.slots)) for name, class_, t, v in series]
    bottom, top = sheet.room(LOW_PANEL + 16)
    y = linear_scale(np.concatenate([values for *_, values in reduced]), bottom, top)
    curves = [sheet.curve(y, times_s, values, class_, name) for name, class_, times_s, values in reduced if len(values)]
    panel = sheet.add(y, "Requests", "requests", round_number, 3, *curves)
    if run.steps is not None:
        entries = [("in flight", "quiet-line"), ("running", run.look.classes), ("waiting", "second")]
        sheet.parts.append(_inline_key(panel, entries))


def _inline_key(panel: Panel, entries: list[tuple[str, str]]) -> str:
    """Names of a panel's lines, right-aligned above it."""
    parts, x = [], panel.right
    for name, class_ in reversed(entries):
        x -= 6.2 * len(name)
        parts.append(text(x, panel.top - 11, name))
        parts.append(tag("path", d=f"M{x - 22:.1f} {panel.top - 15:.1f}h16", class_=f"line {class_}", fill="none"))
        x -= 40
    return "".join(parts)


def _latencies(sheet: _Sheet, run: Run, spans: list[Span]) -> bool:
    """Dots of each request over its intended time; returns whether some were left out."""
    requests = run.requests
    values_s = requests.ttft_s if run.metric == "ttft" else requests.e2e_s
    bottom, top = sheet.room(DOT_PANEL)
    y = log_scale([*values_s[np.isfinite(values_s)], *run.limits_s.values()], bottom - 8, top + 12)
    parts: list[str] = []
    for span in spans:
        limit_s = run.limits_s.get(str(span.phase))
        if limit_s is not None and y.holds(limit_s):
            start, end, level = sheet.x.at(span.start_s), sheet.x.at(span.end_s), y.at(limit_s)
            parts += [rect(start, top, end - start, level - top, "over"), line(start, level, end, level, "limit")]
    left_out = False
    for class_ in DRAWN_CLASSES:
        rows = np.flatnonzero((requests.request_class == str(class_)) & np.isfinite(values_s + requests.intended_s))
        kept = rows[thin(len(rows), MOST_DOTS)]
        left_out |= len(kept) < len(rows)
        path = dots_path(sheet.x.px(requests.intended_s[kept]), y.px(values_s[kept]))
        parts.append(tag("path", d=path, class_=f"dots c-{class_}", data_tip=str(class_)) if path else "")
    for class_ in WITHOUT_ANSWER:
        rows = np.flatnonzero((requests.request_class == str(class_)) & ~np.isfinite(values_s))
        rows = rows[np.isfinite(requests.intended_s[rows])]
        kept = rows[thin(len(rows), MOST_DOTS)]
        left_out |= len(kept) < len(rows)
        ticks = "".join(f"M{x:.1f} {top:.1f}v7" for x in sheet.x.px(requests.intended_s[kept]).tolist())
        parts.append(tag("path", d=ticks, class_=f"rug c-{class_}") if ticks else "")
    name = f"{metric_name(run.metric)} of each request"
    sheet.add(y, name, "s", round_seconds, 5, *parts)
    return left_out


def _engine(sheet: _Sheet, run: Run) -> None:
    steps = run.steps
    if steps is None:
        return
    if np.isfinite(steps.kv_fraction).any():
        bottom, top = sheet.room(LOW_PANEL - 14)
        y = Scale("linear", 0.0, 1.0, bottom, top)
        times_s, used = slots(steps.start_s, steps.kv_fraction, run.end_s, sheet.slots)
        area = sheet.area(y, times_s, used, run.look.classes, "KV blocks in use")
        sheet.add(y, "KV blocks in use", "share", round_percent, 2, area)
    budget = np.where(steps.prefill_budget_tokens < UNLIMITED_TOKENS, steps.prefill_budget_tokens, np.nan)
    if np.isfinite(budget).any():
        bottom, top = sheet.room(LOW_PANEL - 14)
        times_s, tokens = slots(steps.start_s, budget, run.end_s, sheet.slots, least=True)
        y = linear_scale(tokens, bottom, top)
        curve = sheet.curve(y, times_s, tokens, run.look.classes, "prefill budget")
        sheet.add(y, "Prefill budget, tokens a step", "tokens", round_number, 2, curve)


def _phases(sheet: _Sheet, spans: list[Span]) -> str:
    """Shading of the phases over the whole height, with their names on top where there is room."""
    parts = []
    for span in spans:
        start, end = sheet.x.at(span.start_s), sheet.x.at(span.end_s)
        parts.append(rect(start, HEADROOM, end - start, sheet.bottom - HEADROOM, f"phase p-{span.phase}"))
        name = str(span.phase)
        if end - start > 6.4 * len(name):
            parts.append(text((start + end) / 2, HEADROOM - 8, name, f"phase-name p-{span.phase}", "middle"))
        elif end - start > 12:
            parts.append(text((start + end) / 2, HEADROOM - 8, name[0], f"phase-name p-{span.phase}", "middle"))
    return "".join(parts)


def timeline(run: Run, width: float) -> tuple[str, bool]:
    """The run as one drawing of ``width`` px, and whether any dots were left out. Needs at least one request."""
    sheet = _Sheet(run, width)
    spans = run.requests.spans()
    _arrivals(sheet, run)
    _in_flight(sheet, run)
    left_out = _latencies(sheet, run, spans)
    _engine(sheet, run)
    assert sheet.last is not None
    axis = sheet.last.x_axis(round_number, "seconds since the start of the run", 5 if width < WIDE else 10)
    classes, counts = np.unique(run.requests.request_class, return_counts=True)
    said = ", ".join(f"{amount} {class_}" for class_, amount in zip(classes, counts, strict=True))
    phases = ", ".join(f"{span.phase} from {span.start_s:.0f} to {span.end_s:.0f} s" for span in spans)
    kind = "wide" if width >= WIDE else "narrow"
    svg = drawing(
        f"timeline-{run.look.index}-{kind}",
        width,
        sheet.bottom + BOTTOM,
        f"Timeline of {run.look.name}",
        f"Phases: {phases}. Requests: {said}.",
        _phases(sheet, spans),
        *sheet.parts,
        axis,
        class_=kind,
    )
    return svg, left_out
