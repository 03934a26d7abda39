"""A sheet of panels one below the other on one time axis, and the run that is drawn on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from setpoint.report.charts.frame import LEFT, RIGHT, Format, Panel
from setpoint.report.charts.samples import Floats, RequestSamples, ServerSamples, StepSamples
from setpoint.report.charts.scales import Scale
from setpoint.report.charts.series import stairs
from setpoint.report.charts.styles import Look
from setpoint.report.charts.svg import line, polyline_path, tag

HEADROOM, SPACE = 22.0, 40.0
NO_SERVER = ServerSamples({})


@dataclass(frozen=True, slots=True)
class Run:
    """One candidate's run and what to show of it: ``metric`` is ``ttft`` or ``e2e``, with its limits by phase.

    ``gap_limits_s`` are those of the gaps between tokens.
    """

    look: Look
    requests: RequestSamples
    steps: StepSamples | None
    metric: str
    limits_s: dict[str, float]
    server: ServerSamples = NO_SERVER
    gap_limits_s: dict[str, float] = field(default_factory=dict)

    @property
    def end_s(self) -> float:
        """End of the time axis."""
        return max(self.requests.end_s(), 1e-3)


class Sheet:
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
