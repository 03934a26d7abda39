"""Reads ``slo`` and ``slo_burst``: percentiles of latencies, spread, goodput and shed fractions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from setpoint.requirement.reading import Value
from setpoint.requirement.slos import LatencyMetric, LatencySlo, Slos, SpreadSlo
from setpoint.requirement.units import (
    DURATIONS,
    FRACTIONS,
    RATIOS,
    parse_duration_s,
    parse_fraction,
    parse_ratio,
)

T = TypeVar("T")

METRICS = tuple(metric.value for metric in LatencyMetric)
PERCENTILES = "percentiles with limits, for example {p95: 300ms}"

_PERCENTILE = re.compile(r"p(?P<number>[0-9]{1,2}(?:\.[0-9]{1,3})?)")
_NAMES = {"goodput_fraction_min": "goodput_fraction", "shed_fraction_max": "shed_fraction"}


def read_slos(value: Value) -> Slos | None:
    """The limits of one phase, or ``None`` after noting what is wrong."""
    readers: dict[str, Callable[[Value], Any]] = {name: _reader_of(LatencyMetric(name)) for name in METRICS}
    readers["spread"] = _read_spread
    readers["goodput_fraction"] = readers["shed_fraction"] = lambda entry: entry.scalar(parse_fraction, FRACTIONS)
    found = value.read(readers)
    if found is None:
        return None
    limits = [found.pop(name) for name in METRICS if name in found]
    found["latency"] = None if None in limits else tuple(slo for slos in limits for slo in slos)
    for attribute, name in _NAMES.items():
        if name in found:
            found[attribute] = found.pop(name)
    return value.build(Slos, found, _NAMES)


def _reader_of(metric: LatencyMetric) -> Callable[[Value], tuple[LatencySlo, ...] | None]:
    return lambda value: _read_percentiles(value, metric)


def _read_percentiles(value: Value, metric: LatencyMetric) -> tuple[LatencySlo, ...] | None:
    """The limits of one metric, or ``None`` if any of them is wrong."""
    if value.is_scalar:
        value.fault(f"{PERCENTILES}: say for which percentile the limit holds")
        return None
    values = value.mapping(PERCENTILES)
    if not values:
        if values is not None:
            value.fault(PERCENTILES)
        return None
    return _all_good(_read_limit(entry, metric, name) for name, entry in values.items())


def _read_limit(value: Value, metric: LatencyMetric, name: str) -> LatencySlo | None:
    match = _PERCENTILE.fullmatch(name)
    if match is None or not 0 < float(match["number"]) < 100:
        value.fault("a percentile above 0 and below 100, for example p50, p95 or p99.9", found="this key")
        return None
    limit_s = value.scalar(parse_duration_s, DURATIONS)
    found = {"metric": metric, "percentile": float(match["number"]), "limit_s": limit_s}
    return value.build(LatencySlo, found, {"limit_s": ""})


def _read_spread(value: Value) -> tuple[SpreadSlo, ...] | None:
    values = value.fields(METRICS)
    if not value.is_mapping:
        return None
    return _all_good(
        entry.build(SpreadSlo, {"metric": name, "limit": entry.scalar(parse_ratio, RATIOS)}, {"limit": ""})
        for name, entry in values.items()
    )


def _all_good(parts: Iterable[T | None]) -> tuple[T, ...] | None:
    """The parts, or ``None`` if one of them is ``None``; every reader runs, so that every problem is noted."""
    every = list(parts)
    good = tuple(part for part in every if part is not None)
    return good if len(good) == len(every) else None
