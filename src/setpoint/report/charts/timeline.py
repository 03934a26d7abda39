"""The run over time: load and endings, requests in the system, each request's latency, gaps, what the server did meanwhile."""

from __future__ import annotations

import numpy as np

from setpoint.report.charts.frame import BOTTOM
from setpoint.report.charts.samples import Span
from setpoint.report.charts.sheet import HEADROOM, Run, Sheet
from setpoint.report.charts.svg import drawing, rect, text
from setpoint.report.charts.timeline_panels import MOST_DOTS, arrivals, drafts, endings, engine, gaps, in_system, latencies
from setpoint.report.format import round_number

__all__ = ["MOST_DOTS", "NARROW", "WIDE", "Run", "timeline"]

WIDE, NARROW = 1080.0, 400.0


def _phases(sheet: Sheet, spans: list[Span]) -> str:
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
    sheet = Sheet(run, width)
    spans = run.requests.spans()
    arrivals(sheet, run)
    endings(sheet, run)
    in_system(sheet, run)
    left_out = latencies(sheet, run, spans)
    gaps(sheet, run, run.gap_limits_s, spans)
    engine(sheet, run)
    drafts(sheet, run)
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
