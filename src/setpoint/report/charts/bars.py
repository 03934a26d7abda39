"""Small bars: how requests ended, and a checked value against its limit."""

from __future__ import annotations

from setpoint.record import Phase, PhaseMeasures, RequestClass, SloCheck
from setpoint.report.charts.scales import Scale
from setpoint.report.charts.svg import drawing, line, rect, tag, words
from setpoint.report.check_words import check_interval, check_limit, check_name, check_number, is_floor
from setpoint.report.format import share

BAR_WIDTH, BAR_HEIGHT = 400.0, 16.0
GAUGE_WIDTH, GAUGE_HEIGHT = 220.0, 22.0


def class_counts(figures: PhaseMeasures) -> dict[RequestClass, int]:
    """How many requests ended in each class."""
    return {class_: int(getattr(figures, str(class_))) for class_ in RequestClass}


def class_bar(figures: PhaseMeasures, name: str, phase: Phase, key: str) -> str:
    """One bar of all offered requests, split by how they ended."""
    parts, x = [], 0.0
    counts = class_counts(figures)
    for class_, amount in counts.items():
        if amount == 0:
            continue
        width = BAR_WIDTH * amount / figures.offered
        tip = tag("title", words(f"{class_}: {amount} of {figures.offered} ({share(amount, figures.offered)})"))
        parts.append(rect(x, 0, max(width - 1.0, 1.0), BAR_HEIGHT, f"c-{class_}", tip))
        x += width
    said = ", ".join(f"{amount} {class_}" for class_, amount in counts.items())
    title = f"How requests ended: {name}, {phase}"
    return drawing(key, BAR_WIDTH, BAR_HEIGHT, title, f"{figures.offered} offered: {said}.", *parts, class_="bar")


def gauge(check: SloCheck, key: str) -> str:
    """The value as a bar, its interval as a whisker, the limit as a tick."""
    ends = [check.limit, check.value or 0.0, *(check.interval or ())]
    fraction = check.metric.endswith("_fraction")
    high = 1.0 if fraction and max(ends) > 0.5 else max(ends) * 1.08 or 1.0
    high = min(high, 4.0 * check.limit) if check.limit > 0 else high
    x = Scale("linear", 0.0, max(high, 1e-12), 0.0, GAUGE_WIDTH)
    middle = GAUGE_HEIGHT / 2
    parts = [rect(0, middle - 4, GAUGE_WIDTH, 8, "gauge-bed")]
    if check.value is not None:
        parts.append(rect(0, middle - 4, x.at(check.value), 8, f"gauge v-{check.verdict}"))
    if check.interval is not None:
        low, top = (x.at(end) for end in check.interval)
        parts += [line(low, middle, top, middle, "gauge-interval")]
        parts += [line(end, middle - 5, end, middle + 5, "gauge-interval") for end in (low, top)]
    limit = min(x.at(check.limit), GAUGE_WIDTH - 1)
    parts.append(line(limit, 0, limit, GAUGE_HEIGHT, "gauge-limit"))
    said = (
        f"{check_number(check, check.value)}, interval {check_interval(check)}, limit {check_limit(check)}, "
        f"{'at least' if is_floor(check) else 'at most'}: {check.verdict}"
    )
    title = f"{check_name(check)}, {check.phase}"
    return drawing(key, GAUGE_WIDTH, GAUGE_HEIGHT, title, said, *parts, class_="gauge-svg")
