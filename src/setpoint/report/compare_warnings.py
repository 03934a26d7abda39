"""What besides the thing compared may explain a difference between runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from setpoint.report.compare_figures import ComparedRun

MOST_DIFFERENCES = 6
TIME_TOLERANCE_S = 1e-6
NOT_THE_MACHINE = ("versions", "command", "started", "duration_s", "cpu_features_sought")
ONLY_WORDS = ("name", "description")


def changes(a: ComparedRun, b: ComparedRun) -> list[str]:
    """What differs in the configurations of the two candidates, and in their names."""
    found = _differences(a.candidate.config, b.candidate.config)
    if a.candidate.name != b.candidate.name:
        found.insert(0, f"candidate: {a.candidate.name} -> {b.candidate.name}")
    return found


def warnings_of(runs_a: Sequence[ComparedRun], runs_b: Sequence[ComparedRun]) -> list[str]:
    """Every reason to doubt the comparison, one sentence each."""
    warnings = [warning for run in (*runs_a, *runs_b) for warning in _doubts(run)]
    first, *others = _named(runs_a, runs_b)
    warnings += [warning for other in others for warning in _conditions(first, other)]
    arrivals = [list(_arrivals(a, b)) for a, b in zip(runs_a, runs_b, strict=True)]  # a seed a round is as it should be
    warnings += next((found for found in arrivals if found), [])
    for runs, side in ((runs_a, "A"), (runs_b, "B")):
        if any(run.candidate.config != runs[0].candidate.config for run in runs):
            warnings.append(f"The runs of {side} do not have one configuration: their differences are in its variation.")
    warnings += _order(runs_a, runs_b)
    return list(dict.fromkeys(warnings))


def _named(runs_a: Sequence[ComparedRun], runs_b: Sequence[ComparedRun]) -> list[tuple[str, ComparedRun]]:
    """Every run with its name in a sentence: A and B, or with several rounds A1 to An and B1 to Bn."""
    sides = (("A", runs_a), ("B", runs_b))
    return [(f"{side}{n}" if len(runs) > 1 else side, run) for side, runs in sides for n, run in enumerate(runs, start=1)]


def _doubts(run: ComparedRun) -> Iterator[str]:
    """What is doubtful about one run alone."""
    if not run.run.report.validity.valid:
        reasons = "; ".join(run.run.report.validity.reasons)
        yield f"{run.name} is an invalid run ({reasons}): its figures describe the client, not the server."
    if run.steady.drifting:
        yield f"{run.name} was {run.steady.words}."


def _conditions(first: tuple[str, ComparedRun], other: tuple[str, ComparedRun]) -> Iterator[str]:
    """Where the circumstances of two runs differ, each with its name."""
    (name_a, a), (name_b, b) = first, other
    report_a, report_b = a.run.report, b.run.report
    requirement_a, requirement_b = (
        {key: value for key, value in (report.requirement or {}).items() if key not in ONLY_WORDS}
        for report in (report_a, report_b)
    )
    requirement = _differences(requirement_a, requirement_b)
    if requirement:
        yield f"The requirements differ, so goodput and offered load do not mean the same: {_listed(requirement)}."
    facts_a, facts_b = (
        {key: value for key, value in report.machine.items() if key not in NOT_THE_MACHINE} for report in (report_a, report_b)
    )
    machine = _differences(facts_a, facts_b)
    if machine:
        yield f"The machines differ: {_listed(machine)}."
    versions = _differences(report_a.machine.get("versions") or {}, report_b.machine.get("versions") or {})
    if versions:
        yield f"The versions differ: {_listed(versions)}."
    if report_a.kind != report_b.kind:
        yield f"{name_a} is a run of {report_a.kind}, {name_b} of {report_b.kind}."
    for phase in sorted(set(a.requests) ^ set(b.requests)):
        has, lacks = (name_a, name_b) if phase in a.requests else (name_b, name_a)
        yield f"{has} has a {phase} phase and {lacks} has none: it is not compared."


def _arrivals(a: ComparedRun, b: ComparedRun) -> Iterator[str]:
    """Whether both runs offered the same requests at the same times."""
    for phase in a.requests:
        if phase not in b.requests:
            continue
        times_a, times_b = (run.requests[phase].intended_s - run.spans[phase].start_s for run in (a, b))
        same = len(times_a) == len(times_b) and bool(np.allclose(times_a, times_b, rtol=0.0, atol=TIME_TOLERANCE_S))
        if not same:
            yield (
                f"The arrivals of the {phase} phase differ ({len(times_a)} and {len(times_b)} requests): part of the"
                " difference is the luck of the arrivals; measure both with one --seed."
            )


def _order(runs_a: Sequence[ComparedRun], runs_b: Sequence[ComparedRun]) -> Iterator[str]:
    """Whether the order of the runs lets the machine's own changes look like a difference."""
    if len(runs_a) == 1:
        yield (
            "One run a side: what varies from run to run is not in the intervals. To have it in, run A B A B A B and"
            " compare all six folders in that order."
        )
    times = [_time(run) for pair in zip(runs_a, runs_b, strict=True) for run in pair]
    known = [time for time in times if time is not None]
    if len(known) < len(times):
        return
    starts = [start for start, _ in known]
    if len(runs_a) > 1 and starts != sorted(starts):
        yield "The runs were not made in the order A B A B: a slow change of the machine may look like a difference."
    if len(runs_a) == 1:
        (start_a, end_a), (start_b, end_b) = known
        apart_s = max(start_a, start_b) - min(end_a, end_b)
        if apart_s > 3600.0:
            yield f"The runs are {timedelta(seconds=round(apart_s))} apart: the machine may have changed meanwhile."
        elif apart_s < 0.0:
            yield "The runs overlap in time: they disturbed each other if they shared a machine."


def _time(run: ComparedRun) -> tuple[float, float] | None:
    """When the run began and ended, in seconds since 1970."""
    ends = run.run.run_info.get("started_unix_s"), run.run.run_info.get("ended_unix_s")
    start, end = ends
    if isinstance(start, int | float) and isinstance(end, int | float):
        return float(start), float(end)
    return None


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], path: str = "") -> list[str]:
    """``field: value in A -> value in B`` of every leaf that differs, in the order of the keys."""
    found: list[str] = []
    for key in [*a, *(key for key in b if key not in a)]:
        left, right = a.get(key), b.get(key)
        if left == right:
            continue
        name = f"{path}{key}"
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += _differences(left, right, f"{name}.")
        else:
            found.append(f"{name}: {_shown(left)} -> {_shown(right)}")
    return found


def _shown(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _listed(differences: Sequence[str]) -> str:
    more = len(differences) - MOST_DIFFERENCES
    return "; ".join(differences[:MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
