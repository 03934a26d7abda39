"""Numbers as people read them: three digits, a unit, a dash where nothing is known."""

from __future__ import annotations

import math
import unicodedata

UNKNOWN = "–"
NO_BREAK = "\u00a0"


def known(value: float | None) -> bool:
    """Whether ``value`` is a finite number."""
    return value is not None and math.isfinite(value)


def three_digits(value: float) -> str:
    """Three significant digits without an exponent; whole numbers above 100."""
    size = abs(value)
    if size == 0 or size >= 99.95:
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.0995 else f"{value:.2g}"


def seconds(value_s: float | None, gap: str = NO_BREAK) -> str:
    """A duration as ``312 ms`` or ``1.24 s``; ``gap`` stands between the number and its unit."""
    if value_s is None or not math.isfinite(value_s):
        return UNKNOWN
    if value_s == 0:
        return f"0{gap}ms"
    if abs(value_s) < 0.9995:
        return f"{three_digits(value_s * 1e3)}{gap}ms"
    return f"{three_digits(value_s)}{gap}s"


def round_seconds(value_s: float, gap: str = NO_BREAK) -> str:
    """A declared duration or a tick, without zeros that say nothing: ``80 ms``, ``2.5 s``."""
    return f"{value_s * 1e3:.4g}{gap}ms" if abs(value_s) < 0.9995 and value_s != 0 else f"{value_s:.6g}{gap}s"


def round_percent(fraction: float, gap: str = NO_BREAK) -> str:
    """A declared fraction or a tick, without zeros that say nothing: ``95 %``, ``99.9 %``."""
    return f"{100 * fraction:.6g}{gap}%"


def round_number(value: float) -> str:
    """A tick without zeros that say nothing: ``50``, ``0.5``, ``2,000``."""
    return f"{value:,.6g}"


def interval_s(interval: tuple[float, float] | None, gap: str = NO_BREAK) -> str:
    """An interval of durations in one unit: ``480–560 ms``."""
    if interval is None or not all(math.isfinite(end) for end in interval):
        return UNKNOWN
    low_s, high_s = interval
    scale, unit = (1e3, "ms") if high_s < 0.9995 else (1.0, "s")
    return f"{three_digits(low_s * scale)}–{three_digits(high_s * scale)}{gap}{unit}"


def percent(fraction: float | None, gap: str = NO_BREAK) -> str:
    """A measured fraction as a percentage: whole at 0 and 1, one decimal else."""
    if fraction is None or not math.isfinite(fraction):
        return UNKNOWN
    digits = 0 if fraction in (0, 1) else 1
    return f"{100 * fraction:.{digits}f}{gap}%"


def share(part: int, whole: int, gap: str = NO_BREAK) -> str:
    """``part`` of ``whole`` as a percentage; a dash where ``whole`` is zero."""
    return percent(part / whole, gap) if whole else UNKNOWN


def number(value: float | None) -> str:
    """A plain number with three digits."""
    return three_digits(value) if value is not None and math.isfinite(value) else UNKNOWN


def count(value: int | None) -> str:
    """A count with thousands separated."""
    return UNKNOWN if value is None else f"{value:,}"


def rate(value_rps: float | None) -> str:
    """A rate per second: ``2.43/s``."""
    return UNKNOWN if value_rps is None or not math.isfinite(value_rps) else f"{three_digits(value_rps)}/s"


def printable(text: str) -> str:
    """``text`` without control characters, which could move a terminal's cursor or are not allowed in HTML."""
    return "".join(char if char == "\n" or unicodedata.category(char) not in ("Cc", "Cs") else "\ufffd" for char in text)


def shortened(text: str, most: int) -> str:
    """At most ``most`` characters, with an ellipsis where some were left out."""
    text = printable(text)
    return text if len(text) <= most else text[: most - 1] + "…"
