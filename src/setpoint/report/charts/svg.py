"""SVG as text: every attribute and every text is escaped here and nowhere else."""

from __future__ import annotations

from html import escape
from math import isfinite
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from setpoint.report.format import printable

Anchor = Literal["start", "middle", "end"]
Shape = Literal["circle", "square", "triangle", "diamond"]


def digits(value: float) -> str:
    """A coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0") if isfinite(value) else "0"


def tag(name: str, *children: str, **attributes: str | float | None) -> str:
    """An element. Attribute names lose a trailing ``_`` and have ``-`` for ``_``; ``None`` is left out.

    ``children`` are markup already; use ``words`` for text.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None:
            continue
        written = escape(printable(value), quote=True) if isinstance(value, str) else digits(value)
        parts.append(f'{key.rstrip("_").replace("_", "-")}="{written}"')
    opening = " ".join(parts)
    body = "".join(children)
    return f"<{opening}>{body}</{name}>" if body else f"<{opening}/>"


def words(text: str) -> str:
    """Text content, escaped."""
    return escape(printable(text), quote=False)


def text(x: float, y: float, content: str, class_: str = "tick", anchor: Anchor = "start") -> str:
    """A line of text with its baseline at ``y``."""
    return tag("text", words(content), x=x, y=y, class_=class_, text_anchor=None if anchor == "start" else anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def rect(x: float, y: float, width: float, height: float, class_: str, *children: str) -> str:
    """A rectangle; negative sizes are drawn as nothing."""
    return tag("rect", *children, x=x, y=y, width=max(width, 0.0), height=max(height, 0.0), class_=class_)


def polyline_path(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> str:
    """Path data of a line through finite points; a NaN interrupts it."""
    parts: list[str] = []
    pen_down = False
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        if not (isfinite(x) and isfinite(y)):
            pen_down = False
            continue
        parts.append(f"{'L' if pen_down else 'M'}{digits(x)} {digits(y)}")
        pen_down = True
    return "".join(parts)


def dots_path(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> str:
    """Path data of dots: zero-length strokes, round by the style sheet, about twelve bytes a dot."""
    return "".join(
        f"M{digits(x)} {digits(y)}h0" for x, y in zip(xs.tolist(), ys.tolist(), strict=True) if isfinite(x) and isfinite(y)
    )


def marker_path(shape: Shape, x: float, y: float, size: float) -> str:
    """Path data of a marker of about ``size`` pixels' radius around (x, y)."""
    if shape == "square":
        half = size * 0.88
        return f"M{digits(x - half)} {digits(y - half)}h{digits(2 * half)}v{digits(2 * half)}h{digits(-2 * half)}z"
    if shape == "triangle":
        return (
            f"M{digits(x)} {digits(y - size * 1.15)}L{digits(x + size * 1.1)} {digits(y + size * 0.85)}"
            f"H{digits(x - size * 1.1)}z"
        )
    if shape == "diamond":
        reach = size * 1.25
        return (
            f"M{digits(x)} {digits(y - reach)}L{digits(x + reach)} {digits(y)}"
            f"L{digits(x)} {digits(y + reach)}L{digits(x - reach)} {digits(y)}z"
        )
    arc = f"a{size:g} {size:g} 0 1 0 "
    return f"M{digits(x - size)} {digits(y)}{arc}{digits(2 * size)} 0{arc}{digits(-2 * size)} 0z"


def drawing(key: str, width: float, height: float, title: str, description: str, *children: str, class_: str = "") -> str:
    """A whole SVG with a title and a description for those who cannot see it. ``key`` is unique on the page."""
    head = tag("title", words(title), id=f"{key}-title") + tag("desc", words(description), id=f"{key}-desc")
    return tag(
        "svg",
        head,
        *children,
        viewBox=f"0 0 {digits(width)} {digits(height)}",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
        class_=f"plot {class_}".strip(),
    )
