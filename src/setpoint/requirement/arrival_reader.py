"""Reads ``arrival`` and ``burst``: the process and its rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from setpoint.requirement.arrival import ARRIVAL_KEYS, Arrival, ArrivalProcess, Burst, Step
from setpoint.requirement.reading import Value
from setpoint.requirement.tokens_reader import read_number
from setpoint.requirement.units import BURST_RATES, DURATIONS, RATES, parse_burst_rate_rps, parse_duration_s, parse_rate_rps

STEPS = "a rate and how long it lasts, such as {rate: 2/s, duration: 30s}"

_STEP_KEYS = {"rate_rps": "rate", "duration_s": "duration"}


def read_arrival(value: Value) -> Arrival | None:
    """The arrivals, or ``None`` after noting what is wrong. ``steps`` have rates of their own, the others need ``rate``."""
    readers: dict[str, Callable[[Value], Any]] = {
        "process": lambda entry: entry.one_of(process.value for process in ArrivalProcess),
        "rate": _rate,
        "cv": read_number,
        "to": _rate,
        "steps": _read_steps,
        "on": _duration,
        "off": _duration,
        "off_rate": _rate,
    }
    found = value.read(readers, required=() if _is_step(value) else ("rate",))
    if found is not None and found.get("steps") and "rate" not in found:
        try:
            found["rate"] = Arrival.stepped(found["steps"]).rate_rps
        except ValueError:
            found["rate"] = 1.0  # No step has a rate: the steps are at fault, and so it is said.
    if found is not None and "rate" not in found and "steps" not in found and _is_step(value):
        value.note(("steps",), f"this key is required with step, such as steps: [{STEPS.partition('such as ')[2]}]")
        return None
    return value.build(Arrival, renamed(found, ARRIVAL_KEYS), ARRIVAL_KEYS)


def read_burst(value: Value, arrival: Arrival | None) -> Burst | None:
    """The burst; a multiple is of the sustained rate (of 1/s where that is wrong: the file is refused anyway)."""
    sustained_rps = 1.0 if arrival is None else arrival.mean_rps
    readers: dict[str, Callable[[Value], Any]] = {
        "rate": lambda entry: entry.scalar(lambda text: parse_burst_rate_rps(text, sustained_rps), BURST_RATES),
        "duration": _duration,
    }
    found = value.read(readers, required=("rate", "duration"))
    return value.build(Burst, renamed(found, _STEP_KEYS), _STEP_KEYS)


def renamed(found: dict[str, Any] | None, yaml_names: Mapping[str, str]) -> dict[str, Any] | None:
    """``found`` by attribute instead of by the key in the file."""
    attributes = {name: attribute for attribute, name in yaml_names.items()}
    return None if found is None else {attributes.get(name, name): value for name, value in found.items()}


def _read_steps(value: Value) -> tuple[Step, ...] | None:
    steps = [_read_step(entry) for entry in value.entries(STEPS)]
    good = tuple(step for step in steps if step is not None)
    return good if len(good) == len(steps) > 0 else None


def _read_step(value: Value) -> Step | None:
    found = value.read({"rate": _rate, "duration": _duration}, required=("rate", "duration"))
    return value.build(Step, renamed(found, _STEP_KEYS), _STEP_KEYS)


def _is_step(value: Value) -> bool:
    """Whether the process is, or by its keys is meant to be, ``step``."""
    pairs = value.node.value if value.is_mapping else ()
    entries = {key.value: entry.value for key, entry in pairs if isinstance(key.value, str)}
    return entries.get("process") == ArrivalProcess.STEP.value or "steps" in entries


def _rate(value: Value) -> float | None:
    return value.scalar(parse_rate_rps, RATES)


def _duration(value: Value) -> float | None:
    return value.scalar(parse_duration_s, DURATIONS)
