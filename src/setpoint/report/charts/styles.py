"""How each candidate looks in every chart: colour and shape by batching mode, line pattern where a mode comes twice."""

from __future__ import annotations

from dataclasses import dataclass

from setpoint.record import Report
from setpoint.report.charts.svg import Shape, digits, marker_path, tag
from setpoint.report.format import shortened

SHAPES: dict[str, Shape] = {"immediate": "circle", "static": "square", "continuous": "triangle", "setpoint": "diamond"}
PATTERNS = ("", "6 3", "2 3", "9 3 2 3")


@dataclass(frozen=True, slots=True)
class Look:
    """One candidate's look. ``label`` is its name, shortened; ``pattern`` a dash array or empty."""

    name: str
    label: str
    index: int
    mode: str
    shape: Shape
    pattern: str
    chosen: bool

    @property
    def classes(self) -> str:
        """CSS classes that set the colour, and the weight of the chosen one."""
        return f"m-{self.mode}" + (" chosen" if self.chosen else "")

    def marker(self, x: float, y: float, size: float, *children: str, class_: str = "mark") -> str:
        """This candidate's marker at (x, y)."""
        return tag("path", *children, d=marker_path(self.shape, x, y, size), class_=f"{class_} {self.classes}")

    def key(self) -> str:
        """A small drawing for legends and tables: a piece of the line with the marker on it."""
        stroke = tag("path", d="M1 7H25", class_=f"line {self.classes}", stroke_dasharray=self.pattern or None, fill="none")
        return tag(
            "svg", stroke, self.marker(13, 7, 4.2), viewBox=f"0 0 {digits(26)} {digits(14)}", class_="key", aria_hidden="true"
        )


def looks(report: Report) -> dict[str, Look]:
    """A look for every candidate by name; ``config["mode"]`` says the mode, else the start of the name."""
    found: dict[str, Look] = {}
    seen: dict[str, int] = {}
    for index, candidate in enumerate(report.candidates):
        stated = str(candidate.config.get("mode", ""))
        mode = stated if stated in SHAPES else next((m for m in SHAPES if candidate.name.startswith(m)), "other")
        order = seen.get(mode, 0)
        seen[mode] = order + 1
        found[candidate.name] = Look(
            name=candidate.name,
            label=shortened(candidate.name, 22),
            index=index,
            mode=mode,
            shape=SHAPES.get(mode, "circle"),
            pattern=PATTERNS[order % len(PATTERNS)],
            chosen=candidate.name == report.chosen,
        )
    return found
