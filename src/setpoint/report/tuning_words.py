"""The loop of a tuning report in words and rows: for the terminal and for the page (``record.Report.tuning``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from setpoint.record import Phase
from setpoint.report.format import UNKNOWN, interval_s, number, percent, seconds
from setpoint.report.words import metric_name, phase_name

GOODPUT = "goodput_fraction"
DECODES, CONTEXT = 8, 128
SHOWN_CHANCE = 0.005


@dataclass(frozen=True, slots=True)
class IterationRow:
    """One turn of the loop. ``result``: predicted against measured; ``learned``: what changed in the model of the machine."""

    number: str
    title: str
    why: str
    result: str
    learned: str


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One figure. ``agrees`` is a word."""

    name: str
    phase: str
    predicted: str
    measured: str
    error: str
    stated: str
    agrees: str


@dataclass(frozen=True, slots=True)
class SpaceRow:
    """One configuration that could have been chosen, as it was last forecast."""

    name: str
    verdict: str
    cells: list[str]
    chance: str


SPACE_COLUMNS = ("TTFT P95", "ITL P99", "E2E P95", "Tokens/s", "Goodput", "Limits hold")


def summary_words(tuning: Mapping[str, Any]) -> str:
    """How many were measured of how many, and how it ended."""
    measured, whole = tuning.get("measurements", 0), tuning.get("configurations", 0)
    ended = tuning.get("ended") or {}
    why = str(ended.get("why", "")) if ended else "It was stopped by the user."
    count = f"{measured} measurement{'s' if measured != 1 else ''}"
    return f"{count}, {whole} configurations forecast. {why}" if whole else f"{count}. {why}"


def iteration_rows(tuning: Mapping[str, Any]) -> list[IterationRow]:
    """Every turn in order."""
    return [_iteration(each) for each in tuning.get("iterations", [])]


def comparison_words(tuning: Mapping[str, Any]) -> str:
    """What the table of predicted and measured figures is; empty without one."""
    found = tuning.get("comparison")
    if not found:
        return ""
    place, others = found.get("measurement"), found.get("learned_from") or []
    if not found.get("independent"):
        return f"Predicted before anything was measured, from {found.get('words')}; measurement {place}."
    names = {each.get("number"): each.get("candidate") for each in tuning.get("iterations", [])}
    if not others:
        return f"Predicted from what was kept of earlier runs ({found.get('words')}); measurement {place}."
    same = any(names.get(each) == found.get("candidate") for each in others)
    which = f"measurement{'s' if len(others) > 1 else ''} {', '.join(map(str, others))}"
    repeat = ", an earlier measurement of the same configuration and arrivals among them" if same else ""
    return f"Predicted from the steps of {which}{repeat}, and of no other; measured in measurement {place}."


def comparison_rows(tuning: Mapping[str, Any]) -> list[ComparisonRow]:
    """The figures of the chosen configuration, predicted and measured."""
    found = tuning.get("comparison") or {}
    return [_compared(each) for each in found.get("figures", [])]


def space_rows(tuning: Mapping[str, Any]) -> list[SpaceRow]:
    """Configurations that were only forecast, the most promising first."""
    rows = [each for each in tuning.get("space", []) if not each.get("measured")]
    rows.sort(key=lambda each: (-float(each.get("chance") or 0.0), -float(each.get("goodput_fraction") or 0.0)))
    return [
        SpaceRow(
            name=str(each.get("name")),
            verdict=str(each.get("verdict")),
            cells=[
                seconds(each.get("ttft_p95_s")),
                seconds(each.get("itl_p99_s")),
                seconds(each.get("e2e_p95_s")),
                number(each.get("output_tokens_per_s")),
                percent(each.get(GOODPUT)),
                percent(each.get("held_probability")),
            ],
            chance=_chance(each.get("chance")),
        )
        for each in rows
    ]


def _iteration(each: Mapping[str, Any]) -> IterationRow:
    again = " again" if each.get("action") == "repeat" else ""
    if each.get("failure"):
        return IterationRow(
            str(each.get("number")), f"{each.get('candidate')}{again}", str(each.get("why")), f"Failed: {each['failure']}", ""
        )
    return IterationRow(
        number=str(each.get("number")),
        title=f"{each.get('candidate')}{again}",
        why=str(each.get("why")),
        result=_result(each),
        learned=_learned(each.get("learned") or {}),
    )


def _result(each: Mapping[str, Any]) -> str:
    """Predicted against measured in one line."""
    found = each.get("comparison") or {}
    figures = [figure for figure in found.get("figures", []) if figure.get("phase") == Phase.SUSTAINED]
    words = [f"{_name(figure)} {_value(figure, 'predicted')} → {_value(figure, 'measured')}" for figure in figures]
    if not words:
        return ""
    agrees = "within what was stated" if found.get("agrees") else "not within what was stated"
    return f"Predicted → measured: {', '.join(words)}; {agrees}."


def _learned(lesson: Mapping[str, Any]) -> str:
    before, after = lesson.get("before") or {}, lesson.get("after") or {}
    if not after:
        return ""
    words = []
    speed = lesson.get("speed")
    if speed is not None:
        slower = f"{speed - 1:.0%} slower" if speed >= 1 else f"{1 - speed:.0%} faster"
        words.append(f"steps were {slower} than predicted from {before.get('words')}")
    step = [_step_s(each.get("coefficients") or {}) for each in (before, after)]
    if None not in step:
        words.append(f"a step of {DECODES} decodes {seconds(step[0])} → {seconds(step[1])}")
    words.append(f"error {percent(before.get('error'))} → {percent(after.get('error'))}")
    text = "; ".join(words)
    return f"{text[:1].upper()}{text[1:]}."


def _step_s(coefficients: Mapping[str, float]) -> float | None:
    names = {
        "base_s": 1,
        "token_s": DECODES,
        "sequence_s": DECODES,
        "kv_token_s": DECODES * CONTEXT,
        "product_s": DECODES * CONTEXT,
    }
    if not set(names) <= set(coefficients):
        return None
    return sum(coefficients[name] * count for name, count in names.items())


def _compared(each: Mapping[str, Any]) -> ComparisonRow:
    low, high = each.get("stated") or (None, None)
    stated = None if low is None or high is None else (low, high)
    share = each.get("metric") == GOODPUT
    return ComparisonRow(
        name=_name(each),
        phase=phase_name(str(each.get("phase"))),
        predicted=_value(each, "predicted"),
        measured=_value(each, "measured"),
        error=f"{100 * float(each.get('error', 0.0)):+.1f}{' points' if share else ' %'}",
        stated=f"{percent(low)} to {percent(high)}" if share else interval_s(stated),
        agrees="yes" if each.get("agrees") else "no",
    )


def _name(each: Mapping[str, Any]) -> str:
    if each.get("metric") == GOODPUT:
        return "Goodput"
    return f"{metric_name(str(each.get('metric')))} {str(each.get('statistic')).upper()}"


def _value(each: Mapping[str, Any], which: str) -> str:
    value = each.get(which)
    return percent(value) if each.get("metric") == GOODPUT else seconds(value)


def _chance(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return "under 5 %" if value < SHOWN_CHANCE else percent(value)
