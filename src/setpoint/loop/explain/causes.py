"""Why requests were shed or late: groups by cause, with counts, typical numbers and examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from setpoint.loop.explain.explanation import Cause, Example
from setpoint.loop.explain.life import (
    MOST_GAPS,
    Life,
    StepCosts,
    cause_of,
    gap_causes,
    gaps_over,
    life_of,
    time_parts,
    token_parts,
)
from setpoint.loop.explain.run import Decision, ExplainedRun
from setpoint.loop.explain.words import LATENESS, REFUSALS, SHORT, asked_numbers
from setpoint.record import Phase, RequestClass
from setpoint.report.figures import request_slos, severity
from setpoint.report.format import seconds, shortened
from setpoint.report.request_samples import read_requests
from setpoint.requirement import LatencyMetric, LatencySlo, Slos
from setpoint.statistics import FloatArray

EXAMPLES = 2
MOST_ERROR_CHARACTERS = 80
_EXAMINED = (LatencyMetric.TTFT, LatencyMetric.ITL, LatencyMetric.TPOT, LatencyMetric.E2E)
_VALUE = {
    LatencyMetric.TTFT: "ttft_s",
    LatencyMetric.TPOT: "tpot_s",
    LatencyMetric.E2E: "e2e_s",
    LatencyMetric.ITL: "max_gap_s",
}
SHED_STATUS = (429, 503)


@dataclass(frozen=True, slots=True)
class Found:
    """Why one request was not ok: a code, one sentence of numbers, and the numbers."""

    code: str
    words: str
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Missed:
    """The limit that a late request missed by most, as a multiple of it."""

    slo: LatencySlo
    times: float


def causes(run: ExplainedRun, costs: StepCosts | None) -> list[Cause]:
    """Every request that was not ok, in groups: the largest first within each class."""
    groups: dict[tuple[str, str], list[tuple[dict[str, Any], Found]]] = defaultdict(list)
    missed = missed_limits(run)
    for row in run.rows:
        if row["request_class"] != RequestClass.OK:
            found = found_for(run, row, missed.get(row["request_id"]), costs)
            groups[row["request_class"], found.code].append((row, found))
    ranked = sorted(groups.items(), key=lambda entry: (_rank(entry[0][0]), -len(entry[1]), entry[0][1]))
    return [_group(outcome, code, some, len(run.rows)) for (outcome, code), some in ranked]


def found_for(run: ExplainedRun, row: Mapping[str, Any], missed: Missed | None, costs: StepCosts | None) -> Found:
    """Why the request of ``row``, which was not ok, was not."""
    decisions = (run.decisions or {}).get(row["request_id"], [])
    outcome = RequestClass(row["request_class"])
    if outcome is RequestClass.SHED:
        return _shed(run, row, decisions)
    if outcome is RequestClass.LATE:
        return _late(run, row, life_of(decisions) if decisions else None, missed, costs)
    return _other(row, outcome, decisions)


def missed_limits(run: ExplainedRun) -> dict[str, Missed]:
    """By request id, of each late one the limit it missed by most (as ``report.figures.severity`` weighs them)."""
    if run.requirement is None:
        return {}
    found: dict[str, Missed] = {}
    for phase in Phase:
        table = run.table.filter(pc.equal(run.table["phase"], str(phase)))
        if not table.num_rows:
            continue
        requests, names = read_requests(table), table["request_id"].to_pylist()
        for slo in request_slos(run.requirement, phase).latency:
            if slo.metric not in _EXAMINED:
                continue
            times: FloatArray = severity(requests, Slos(latency=(slo,)))
            for name, value in zip(names, times.tolist(), strict=True):
                if 1.0 < value < np.inf and (name not in found or value > found[name].times):
                    found[name] = Missed(slo, value)
    return found


def _shed(run: ExplainedRun, row: Mapping[str, Any], decisions: list[Decision]) -> Found:
    last = next((each for each in reversed(decisions) if each.kind in ("reject", "shed")), None)
    if last is None:
        code = "before_engine" if _all_told(run, row) else "not_told"
        words = f"answered {row['status']}" + (f": {_error(row)}" if row["error"] else "")
        return Found(code, words, {"refused_after_s": _after_s(row)})
    if last.kind == "reject":
        return Found(last.code, asked_numbers(last), last.operands)
    waited_s = last.operands.get("waited_s", 0.0)
    words = f"waited {seconds(waited_s)}; its own prompt needed {seconds(last.operands.get('own_s'))} and"
    left_s = last.operands.get("left_s", 0.0)
    words += f" {seconds(left_s)} were left" if left_s > 0 else f" its time had run out {seconds(-left_s)} before"
    return Found(last.code, words, last.operands)


def _all_told(run: ExplainedRun, row: Mapping[str, Any]) -> bool:
    """Whether a decision about the request had been read, had there been one: none is missing, and later ones were read."""
    if run.missing_decisions or run.last_decision_s is None or row["ended_s"] is None:
        return False
    return bool(row["ended_s"] <= run.last_decision_s)


def _late(
    run: ExplainedRun, row: Mapping[str, Any], life: Life | None, missed: Missed | None, costs: StepCosts | None
) -> Found:
    metric = missed.slo.metric if missed is not None else LatencyMetric.TTFT if row["streaming"] else LatencyMetric.E2E
    value_s, limit_s = row[_VALUE[metric]], missed.slo.limit_s if missed is not None else None
    head = f"{metric.upper()} {seconds(value_s)}" + (f", limit {seconds(limit_s)}" if limit_s is not None else "")
    if metric is LatencyMetric.ITL:
        counts = Counter(gap_causes(row, life, run.steps, limit_s or 0.0))
        code = counts.most_common(1)[0][0] if counts else "in_server"
        over = gaps_over(row, limit_s or 0.0)
        head = f"longest gap {seconds(value_s)}, limit {seconds(limit_s)}"
        longest = f", of the {MOST_GAPS} longest" if over > MOST_GAPS else ""
        words = f"{head}; {over} gaps over it{longest}: {', '.join(f'{n} {SHORT[name]}' for name, n in counts.most_common())}"
        return Found(code, words, {"max_gap_s": value_s or 0.0, "gaps_over": float(over)})
    times = 1.0
    if metric is LatencyMetric.TPOT:
        parts, times = token_parts(row, life, run.steps, costs), max(1.0, (row["output_tokens"] or 2) - 1.0)
    else:
        parts = time_parts(row, life, run.steps, costs, to_end=metric is not LatencyMetric.TTFT)
    code = cause_of(parts, ((value_s or 0.0) - (limit_s or 0.0)) * times)
    listed = ", ".join(f"{SHORT[name]} {seconds(part)}" for name, part in parts.items() if part >= 5e-4)
    return Found(code, f"{head}: {listed}", {f"{metric}_s": value_s or 0.0, **{f"{n}_s": v for n, v in parts.items()}})


def _other(row: Mapping[str, Any], outcome: RequestClass, decisions: list[Decision]) -> Found:
    if outcome is RequestClass.UNFINISHED:
        joined = any(each.kind == "join" for each in decisions)
        code = "still_running" if joined or row["first_token_s"] is not None else "still_waiting"
        return Found(code, f"{row['output_tokens'] or 0} tokens had come when the run was cut off", {})
    words = _error(row) or (f"status {row['status']}" if row["status"] else "no answer")
    return Found(str(outcome), words, {})


def _group(outcome: str, code: str, some: Sequence[tuple[dict[str, Any], Found]], offered: int) -> Cause:
    numbers: dict[str, list[float]] = defaultdict(list)
    for _, found in some:
        for name, value in found.numbers.items():
            numbers[name].append(value)
    told = [name for name, values in numbers.items() if len(values) * 2 > len(some)]
    typical = {name: float(np.median(numbers[name])) for name in told}
    examples = [Example(row["request_id"] or "", found.words) for row, found in _spread(some)]
    return Cause(outcome, code, group_words(outcome, code), len(some), len(some) / offered, typical, examples)


def _spread(some: Sequence[tuple[dict[str, Any], Found]]) -> Sequence[tuple[dict[str, Any], Found]]:
    """The first and one from the middle: the same on every call."""
    places = sorted({0, len(some) // 2})[:EXAMPLES]
    return [some[place] for place in places]


def group_words(outcome: str, code: str) -> str:
    """What became of requests of a class with this code."""
    other: dict[str, str] = {
        "still_waiting": "still waiting for a place when the run was cut off",
        "still_running": "still being answered when the run was cut off",
        "failed": "failed: the connection or the server broke the answer off",
        "dropped": "dropped by the client: it could not send them in time",
    }
    lookup: Callable[[str], str | None] = (REFUSALS | LATENESS | other).get
    return lookup(code) or f"{outcome}: {code}"


def _rank(outcome: str) -> int:
    return [RequestClass.SHED, RequestClass.LATE, RequestClass.UNFINISHED, RequestClass.FAILED, RequestClass.DROPPED].index(
        RequestClass(outcome)
    )


def _error(row: Mapping[str, Any]) -> str:
    return shortened(str(row["error"] or ""), MOST_ERROR_CHARACTERS)


def _after_s(row: Mapping[str, Any]) -> float:
    ended_s = row["ended_s"]
    return 0.0 if ended_s is None else max(0.0, float(ended_s - row["intended_s"]))
