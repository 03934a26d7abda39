"""The panels of a timeline: load, endings, percentiles, what the server said, each a function of the sheet and the run."""

from __future__ import annotations

import numpy as np

from setpoint.record import RequestClass
from setpoint.report.charts.frame import Panel, thin
from setpoint.report.charts.samples import Floats, Span
from setpoint.report.charts.scales import Scale, linear_scale, log_scale
from setpoint.report.charts.series import (
    bin_width_s,
    counts_by_time,
    in_flight,
    per_second,
    percentiles_by_time,
    slots,
    window_edges_s,
)
from setpoint.report.charts.sheet import Run, Sheet
from setpoint.report.charts.svg import digits, dots_path, line, rect, tag, text, words
from setpoint.report.format import round_number, round_percent, round_seconds
from setpoint.report.words import metric_name

MOST_DOTS = 1500
LOW_PANEL, DOT_PANEL = 74.0, 176.0
DRAWN_CLASSES = (RequestClass.OK, RequestClass.LATE, RequestClass.UNFINISHED, RequestClass.FAILED)
WITHOUT_ANSWER = (RequestClass.SHED, RequestClass.FAILED, RequestClass.DROPPED, RequestClass.UNFINISHED)
STACKED = tuple(RequestClass)
UNLIMITED_TOKENS = 1 << 20
LEVELS, LEVEL_CLASSES, LEAST_SAMPLES = (50.0, 95.0), ("p50", "p95"), (3, 20)
GAP_LEVELS, GAP_CLASSES, LEAST_GAPS = (50.0, 99.0), ("p50", "p99"), (10, 100)


def arrivals(sheet: Sheet, run: Run) -> None:
    """Arrivals against completions, requests per second in bins."""
    width_s = bin_width_s(run.end_s)
    times_s, rates = per_second(run.requests.intended_s, run.end_s, width_s)
    served = np.isin(run.requests.request_class, [str(RequestClass.OK), str(RequestClass.LATE)])
    _, ended = per_second(run.requests.ended_s[served], run.end_s, width_s)
    bottom, top = sheet.room(LOW_PANEL)
    y = linear_scale(np.concatenate([rates, ended]), bottom, top)
    panel = sheet.add(
        y,
        "Requests/s",
        "/s",
        round_number,
        3,
        sheet.area(y, times_s, rates, "quiet", "arrivals"),
        sheet.curve(y, times_s, ended, run.look.classes, "completions"),
    )
    _inline_key(sheet, panel, [("arrivals", "area quiet"), ("completions", f"line {run.look.classes}")])


def endings(sheet: Sheet, run: Run) -> None:
    """How the requests meant for each moment ended, stacked; left out where all ended alike."""
    requests = run.requests
    names = [str(each) for each in STACKED]
    times_s, counts = counts_by_time(requests.intended_s, requests.request_class, names, run.end_s)
    if int((counts.sum(axis=1) > 0).sum()) < 2:
        return
    bottom, top = sheet.room(LOW_PANEL)
    y = linear_scale(counts.sum(axis=0), bottom, top)
    edges = sheet.x.px(np.append(times_s, run.end_s))
    base = np.zeros(counts.shape[1])
    parts = []
    for name, row in zip(names, counts, strict=True):
        lower, upper = y.px(base), y.px(base + row)
        bars = [
            f"M{digits(left)} {digits(low)}V{digits(high)}H{digits(max(left + 0.5, right - 0.6))}V{digits(low)}z"
            for left, right, low, high, amount in zip(edges, edges[1:], lower, upper, row, strict=False)
            if amount
        ]
        if bars:
            tip = tag("title", words(f"{name}: {int(row.sum()):,}"))
            parts.append(tag("path", tip, d="".join(bars), class_=f"stack c-{name}"))
        base += row
    width_s = bin_width_s(run.end_s)
    sheet.add(y, f"How they ended, requests in {round_seconds(width_s)}", "requests", round_number, 3, *parts)


def in_system(sheet: Sheet, run: Run) -> None:
    """Requests in flight as the client saw them; running and waiting as the engine's steps or the server's metrics say."""
    series = [("in flight", "quiet-line", *in_flight(run.requests))]
    if run.steps is not None:
        series.append(("running", run.look.classes, run.steps.start_s, run.steps.running))
        series.append(("waiting", "second", run.steps.start_s, run.steps.waiting))
    else:
        for name, class_ in (("running", run.look.classes), ("waiting", "second")):
            known = run.server.known(name)
            if known is not None:
                series.append((name, class_, *known))
    reduced = [(name, class_, *slots(t, v, run.end_s, sheet.slots)) for name, class_, t, v in series]
    bottom, top = sheet.room(LOW_PANEL + 16)
    y = linear_scale(np.concatenate([values for *_, values in reduced]), bottom, top)
    curves = [sheet.curve(y, times_s, values, class_, name) for name, class_, times_s, values in reduced if len(values)]
    heading = "Requests" if len(series) > 1 else "Requests in flight"
    panel = sheet.add(y, heading, "requests", round_number, 3, *curves)
    if len(series) > 1:
        _inline_key(sheet, panel, [(name, f"line {class_}") for name, class_, *_ in reduced])


def latencies(sheet: Sheet, run: Run, spans: list[Span]) -> bool:
    """Dots of each request over its intended time, and percentiles by time; returns whether dots were left out."""
    requests = run.requests
    values_s = requests.ttft_s if run.metric == "ttft" else requests.e2e_s
    bottom, top = sheet.room(DOT_PANEL)
    y = log_scale([*values_s[np.isfinite(values_s)], *run.limits_s.values()], bottom - 8, top + 12)
    parts = _limit_lines(sheet, run, spans, y, top)
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
    name = metric_name(run.metric)
    edges_s = window_edges_s(requests.intended_s, _bounds_s(run, spans))
    levels = percentiles_by_time(requests.intended_s, values_s, edges_s, LEVELS, least=LEAST_SAMPLES)
    drawn = _levels(sheet, y, edges_s[:-1], levels, LEVEL_CLASSES, name)
    panel = sheet.add(y, f"{name} of each request", "s", round_seconds, 5, *parts, *drawn)
    _inline_key(sheet, panel, _level_key(levels, LEVEL_CLASSES))
    return left_out


def gaps(sheet: Sheet, run: Run, limits_s: dict[str, float], spans: list[Span]) -> None:
    """Percentiles of the gaps between tokens by the time they ended; left out without gaps."""
    requests = run.requests
    edges_s = window_edges_s(requests.gap_ends_s, _bounds_s(run, spans))
    levels = percentiles_by_time(requests.gap_ends_s, requests.gaps_s, edges_s, GAP_LEVELS, least=LEAST_GAPS)
    found = np.concatenate(levels)
    found = found[np.isfinite(found) & (found > 0)]
    if not len(found):
        return
    bottom, top = sheet.room(LOW_PANEL + 16)
    y = log_scale([*found, *limits_s.values()], bottom, top)
    parts = _limit_lines(sheet, run, spans, y, top, limits_s)
    drawn = _levels(sheet, y, edges_s[:-1], levels, GAP_CLASSES, "ITL")
    panel = sheet.add(y, "Gaps between tokens (ITL)", "s", round_seconds, 3, *parts, *drawn)
    _inline_key(sheet, panel, _level_key(levels, GAP_CLASSES))


def engine(sheet: Sheet, run: Run) -> None:
    """KV usage and the prefill budget, of the engine's steps or as far as the server's metrics say."""
    steps = run.steps
    if steps is None:
        known = run.server.known("kv_usage")
        if known is not None:
            _share_panel(sheet, run, *known, "KV cache in use")
        power = run.server.known("power_w")
        if power is not None:
            _line_panel(sheet, run, *power, "GPU power, W", "W")
        return
    if np.isfinite(steps.kv_fraction).any():
        _share_panel(sheet, run, *slots(steps.start_s, steps.kv_fraction, run.end_s, sheet.slots), "KV blocks in use")
    budget = np.where(steps.prefill_budget_tokens < UNLIMITED_TOKENS, steps.prefill_budget_tokens, np.nan)
    if np.isfinite(budget).any():
        times_s, tokens = slots(steps.start_s, budget, run.end_s, sheet.slots, least=True)
        _line_panel(sheet, run, times_s, tokens, "Prefill budget, tokens a step", "tokens")


def drafts(sheet: Sheet, run: Run) -> None:
    """Draft tokens of each step, of all requests and of each that had a draft; left out where no step had one."""
    steps = run.steps
    if steps is None or not (steps.drafted > 0).any():
        return
    each = steps.drafted / np.maximum(steps.drafts, 1.0)
    of_all, of_each = (slots(steps.start_s, values, run.end_s, sheet.slots) for values in (steps.drafted, each))
    bottom, top = sheet.room(LOW_PANEL)
    y = linear_scale(of_all[1], bottom, top)
    panel = sheet.add(
        y,
        "Draft tokens a step",
        "tokens",
        round_number,
        3,
        sheet.area(y, *of_all, "quiet", "in all"),
        sheet.curve(y, *of_each, run.look.classes, "a request"),
    )
    _inline_key(sheet, panel, [("in all", "area quiet"), ("a request", f"line {run.look.classes}")])


def _bounds_s(run: Run, spans: list[Span]) -> Floats:
    """Where phases begin and end: no window of time reaches over one."""
    return np.unique(np.array([0.0, *(span.start_s for span in spans), run.end_s]))


def _share_panel(sheet: Sheet, run: Run, times_s: Floats, shares: Floats, name: str) -> None:
    bottom, top = sheet.room(LOW_PANEL - 14)
    y = Scale("linear", 0.0, 1.0, bottom, top)
    sheet.add(y, name, "share", round_percent, 2, sheet.area(y, times_s, shares, run.look.classes, name))


def _line_panel(sheet: Sheet, run: Run, times_s: Floats, values: Floats, name: str, unit: str) -> None:
    bottom, top = sheet.room(LOW_PANEL - 14)
    y = linear_scale(values, bottom, top)
    sheet.add(y, name, unit, round_number, 2, sheet.curve(y, times_s, values, run.look.classes, name))


def _limit_lines(
    sheet: Sheet, run: Run, spans: list[Span], y: Scale, top: float, limits_s: dict[str, float] | None = None
) -> list[str]:
    """The limit of each phase as a line over that phase, what is over it tinted."""
    parts: list[str] = []
    for span in spans:
        limit_s = (run.limits_s if limits_s is None else limits_s).get(str(span.phase))
        if limit_s is not None and y.holds(limit_s):
            start, end, level = sheet.x.at(span.start_s), sheet.x.at(span.end_s), y.at(limit_s)
            parts += [rect(start, top, end - start, level - top, "over"), line(start, level, end, level, "limit")]
    return parts


def _levels(sheet: Sheet, y: Scale, times_s: Floats, levels: list[Floats], classes: tuple[str, ...], name: str) -> list[str]:
    """A step line for each percentile; a window without enough samples interrupts it."""
    return [
        sheet.curve(y, times_s, values, class_, f"{name} {class_.upper()}")
        for values, class_ in zip(levels, classes, strict=True)
        if np.isfinite(values).any()
    ]


def _level_key(levels: list[Floats], classes: tuple[str, ...]) -> list[tuple[str, str]]:
    known = zip(levels, classes, strict=True)
    return [(class_.upper(), f"line {class_}") for values, class_ in known if np.isfinite(values).any()]


def _inline_key(sheet: Sheet, panel: Panel, entries: list[tuple[str, str]]) -> None:
    """Names of a panel's lines, right-aligned above it."""
    x = panel.right
    for name, class_ in reversed(entries):
        x -= 6.2 * len(name)
        sheet.parts.append(text(x, panel.top - 11, name))
        kind = class_.partition(" ")[0]
        if kind == "area":
            sheet.parts.append(rect(x - 22, panel.top - 20, 16, 9, class_))
        else:
            sheet.parts.append(tag("path", d=f"M{x - 22:.1f} {panel.top - 15:.1f}h16", class_=class_, fill="none"))
        x -= 40
