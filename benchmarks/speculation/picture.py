"""The uneven gains as one figure: speed-up against batch, a line for each kind of work, from ``gain.py``'s JSON.

python benchmarks/speculation/picture.py benchmarks/results/speculation_gain.json --output docs/images/speculation.svg
"""

from __future__ import annotations

import argparse
import json
from math import log2
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 56, 150, 24, 48
COLOURS = ("#1b6ca8", "#2a9d5c", "#c77d0a", "#a8324a")
NAMES = {"template": "filling forms", "code": "editing code", "questions": "short answers", "story": "stories, temp. 1"}


def picture(rows: list[dict[str, Any]], side: str) -> str:
    """SVG. Batches on a logarithmic axis, speed-ups on a linear one from 0."""
    batches = sorted({row["batch"] for row in rows})
    most = max(2.0, *(row[side]["speed_up"] for row in rows)) * 1.08

    def x(batch: int) -> float:
        span = max(1.0, log2(batches[-1]) - log2(batches[0]))
        return LEFT + (WIDTH - LEFT - RIGHT) * (log2(batch) - log2(batches[0])) / span

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / most

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for value in range(int(most) + 1):
        heavy = "#555" if value == 1 else "#ddd"
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="{heavy}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value}x</text>')
    parts += [f'<text x="{x(each):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{each}</text>' for each in batches]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">concurrent requests</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 8}">tokens a second over those without speculation</text>')
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    ends: list[float] = []
    for kind, colour in zip(kinds, COLOURS, strict=False):
        own = sorted((row for row in rows if row["kind"] == kind), key=lambda row: row["batch"])
        points = [(x(row["batch"]), y(row[side]["speed_up"])) for row in own]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in points]
        label = points[-1][1]
        while any(abs(label - other) < 14 for other in ends):
            label -= 14
        ends.append(label)
        parts.append(f'<text x="{points[-1][0] + 10:.1f}" y="{label + 4:.1f}" fill="{colour}">{NAMES.get(kind, kind)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--side", default="adaptive")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    rows = json.loads(arguments.result.read_text(encoding="utf-8"))["rows"]
    arguments.output.write_text(picture(rows, arguments.side), encoding="utf-8")


if __name__ == "__main__":
    main()
