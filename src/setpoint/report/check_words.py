"""A check in words: what it looks at, its value, its interval and its limit, each in the check's own unit."""

from __future__ import annotations

from collections.abc import Callable

from setpoint.record import SloCheck
from setpoint.report.format import (
    NO_BREAK,
    count,
    interval_s,
    number,
    percent,
    printable,
    round_number,
    round_percent,
    round_seconds,
    seconds,
)
from setpoint.report.words import METRIC_NAMES, metric_name

RATES = {
    "goodput_rps": "Good requests/s",
    "requests_per_s": "Answers/s",
    "output_tokens_per_s": "Output tokens/s",
    "prompt_tokens_per_s": "Prompt tokens/s",
}
FRACTION, COUNT = "_fraction", "_count"


def is_floor(check: SloCheck) -> bool:
    """Whether the limit is a least value (goodput) and not a greatest one."""
    if check.sense is not None:
        return check.sense == "at_least"
    return check.statistic == "min" or check.metric == "goodput_fraction"


def check_name(check: SloCheck) -> str:
    """What a check looks at: ``TTFT P95``, ``E2E P99/P50``, ``Goodput``, ``Stalled over 500 ms``."""
    if check.metric == "spread":
        return f"{metric_name(check.statistic)} P99/P50"
    if check.metric == "stalled_fraction":
        gap = check.statistic.removesuffix("s")
        return f"Stalled over {round_seconds(float(gap))}" if _is_number(gap) else "Stalled"
    if check.metric.endswith(FRACTION):
        return metric_name(check.metric.removesuffix(FRACTION)).capitalize()
    if check.metric.endswith(COUNT):
        return f"Requests {metric_name(check.metric.removesuffix(COUNT))}"
    if check.metric in RATES:
        return RATES[check.metric]
    statistic = printable(check.statistic)
    return f"{metric_name(check.metric)} {statistic.upper() if statistic[:1] == 'p' else statistic}"


def check_number(check: SloCheck, value: float | None) -> str:
    """``value`` in the unit of the check."""
    return _form(check)(value)


def check_interval(check: SloCheck) -> str:
    """The interval of a check in its unit."""
    if check.metric in METRIC_NAMES or check.interval is None:
        return interval_s(check.interval)
    low, high = (check_number(check, end) for end in check.interval)
    return f"{low.removesuffix(f'{NO_BREAK}%')}–{high}"


def check_limit(check: SloCheck) -> str:
    """The limit with its sense: ``≤ 400 ms``, ``≥ 95 %``."""
    if check.metric in METRIC_NAMES:
        limit = round_seconds(check.limit)
    elif check.metric.endswith(FRACTION):
        limit = round_percent(check.limit)
    else:
        limit = round_number(check.limit)
    return f"{'≥' if is_floor(check) else '≤'} {limit}"


def _form(check: SloCheck) -> Callable[[float | None], str]:
    if check.metric in METRIC_NAMES:
        return seconds
    if check.metric.endswith(FRACTION):
        return percent
    if check.metric.endswith(COUNT):
        return lambda value: count(None if value is None else round(value))
    return number


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
