"""The knee in words."""

from __future__ import annotations

import math

from setpoint.loop.knee.probes import KneeOptions, ProbeResult
from setpoint.report.format import three_digits


def knee_words(
    rate_rps: float | None,
    interval_rps: tuple[float, float],
    settled: bool,
    limited_by: str,
    results: list[ProbeResult],
    options: KneeOptions,
) -> str:
    """One or two sentences: the knee with its interval, or what is known instead."""
    low, high = (three_digits(end) for end in interval_rps)
    lowest, highest = (three_digits(pick(result.rate_rps for result in results)) for pick in (min, max))
    if rate_rps is None and interval_rps[0] == 0.0:
        return f"No knee was found: {limited_by} is missed already at {lowest} requests/s, the least that was probed."
    if rate_rps is None and interval_rps[1] == math.inf:
        return f"No knee was found: the requirement is met up to {highest} requests/s, the most that was probed."
    if rate_rps is None:
        return f"The knee is not found yet; it is believed to lie between {low} and {high} requests/s."
    words = f"The knee is at {three_digits(rate_rps)} requests/s (95 % interval {low} to {high}), limited by {limited_by}."
    if settled:
        return words
    return f"{words} That is wider than the ±{100 * options.tolerance:g} % asked for: more or longer probes would narrow it."


def belief_words(log_rate: float, interval_rps: tuple[float, float]) -> str:
    """Where the knee is believed to be, as the end of a line."""
    low, high = (three_digits(end) for end in interval_rps)
    if log_rate == math.inf:
        return f"the knee lies above {low}/s"
    if log_rate == -math.inf:
        return f"the knee lies below {high}/s"
    return f"the knee is believed at {three_digits(math.exp(log_rate))}/s ({low} to {high})"
