"""The requirement, the checks and the configuration in words, for the terminal and for the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from setpoint.record import Phase, SloCheck, Verdict
from setpoint.report.format import (
    NO_BREAK,
    interval_s,
    number,
    percent,
    printable,
    round_number,
    round_percent,
    round_seconds,
    seconds,
)
from setpoint.requirement import (
    Arrival,
    ArrivalProcess,
    ChoiceTokens,
    ConstantTokens,
    LatencySlo,
    LognormalTokens,
    Objective,
    Requirement,
    Slos,
    TokenDistribution,
    UniformTokens,
)

METRIC_NAMES = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2e": "E2E", "queue_wait": "Queue wait"}
OBJECTIVE_WORDS = {
    Objective.MIN_COST: "lowest cost",
    Objective.MAX_GOODPUT: "highest goodput",
    Objective.MAX_THROUGHPUT: "highest throughput",
    Objective.MIN_LATENCY: "lowest latency",
}
VERDICT_WORDS = {Verdict.MET: "met", Verdict.MISSED: "missed", Verdict.INCONCLUSIVE: "inconclusive"}
CONFIG_WORDS = {
    "mode": "Batching",
    "max_running": "Most running",
    "token_budget": "Tokens a step",
    "batch_wait_s": "Batch wait",
    "max_waiting": "Queue bound",
    "prefill_floor_tokens": "Prefill floor",
    "kv_cache_tokens": "KV cache",
    "threads": "Threads",
}


class Fact(NamedTuple):
    """A label and what there is to say about it."""

    label: str
    text: str


def metric_name(metric: str) -> str:
    """``ttft`` as ``TTFT``; an unknown name as it stands."""
    return METRIC_NAMES.get(metric, printable(metric).replace("_", " "))


def read_requirement(fields: Mapping[str, Any] | None) -> Requirement | None:
    """The requirement of a report as its type, or ``None`` where there is none or it is of another version."""
    if fields is None:
        return None
    try:
        return Requirement.model_validate(dict(fields))
    except ValidationError:
        return None


def tokens_words(tokens: TokenDistribution) -> str:
    """A token distribution in words."""
    match tokens:
        case ConstantTokens(value=value):
            return f"{value:,} tokens"
        case UniformTokens(min=low, max=high):
            return f"{low:,} to {high:,} tokens"
        case LognormalTokens(median=median, p95=p95):
            return f"around {median:,.0f} tokens (one in twenty over {p95:,.0f})"
        case ChoiceTokens(values=values):
            return "one of " + ", ".join(f"{value:,}" for value in values) + " tokens"


def arrival_words(arrival: Arrival) -> str:
    """An arrival process in words."""
    how = {
        ArrivalProcess.CONSTANT: "evenly spaced",
        ArrivalProcess.POISSON: "at random (Poisson)",
        ArrivalProcess.GAMMA: f"in clumps (gamma, variation {arrival.cv:g})",
    }[arrival.process]
    return f"{round_number(arrival.rate_rps)}/s, {how}"


def slo_words(slos: Slos) -> list[str]:
    """Every limit of ``slos``, one phrase each."""
    words = [_latency_words(slo) for slo in slos.latency]
    words += [f"{metric_name(slo.metric)} P99/P50 ≤ {slo.limit:g}" for slo in slos.spread]
    if slos.goodput_fraction_min is not None:
        words.append(f"goodput ≥ {round_percent(slos.goodput_fraction_min)}")
    if slos.shed_fraction_max is not None:
        words.append(f"shed ≤ {round_percent(slos.shed_fraction_max)}")
    return words


def _latency_words(slo: LatencySlo) -> str:
    return f"{metric_name(slo.metric)} {slo.statistic.upper()} ≤ {round_seconds(slo.limit_s)}"


def requirement_facts(requirement: Requirement) -> list[Fact]:
    """What was asked, in the order a reader wants it."""
    profile = requirement.profile
    prompt = f"{tokens_words(profile.prompt_tokens)} in"
    if profile.shared_prefix_tokens:
        prompt += f", the first {profile.shared_prefix_tokens:,} of them shared"
    answers = f"{tokens_words(profile.output_tokens)} out, " + ("streamed" if profile.streaming else "not streamed")
    facts = [
        Fact("Model", requirement.model.served_name or requirement.model.source),
        Fact("Requests", f"{prompt}; {answers}"),
        Fact("Sustained load", arrival_words(profile.arrival)),
    ]
    if profile.burst is not None:
        facts.append(Fact("Burst", f"{round_number(profile.burst.rate_rps)}/s for {round_seconds(profile.burst.duration_s)}"))
    facts.append(Fact("Limits", "; ".join(slo_words(requirement.slo)) or "none"))
    if burst_limits := slo_words(requirement.slo_burst):
        facts.append(Fact("Limits in the burst", "; ".join(burst_limits)))
    facts.append(Fact("Objective", OBJECTIVE_WORDS[requirement.objective]))
    if requirement.price is not None:
        facts.append(Fact("Price", f"{requirement.price.usd_per_hour:g} USD an hour"))
    return facts


def flat_facts(fields: Mapping[str, Any], prefix: str = "", depth: int = 0) -> list[Fact]:
    """Any nested mapping as labels and texts; below three levels the rest is written as JSON."""
    facts: list[Fact] = []
    for key, value in fields.items():
        label = f"{prefix}{printable(str(key)).replace('_', ' ')}"
        if isinstance(value, Mapping) and depth < 3:
            facts += flat_facts(value, f"{label} · ", depth + 1)
        elif isinstance(value, str):
            facts.append(Fact(label, printable(value)))
        elif isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
            facts.append(Fact(label, printable(", ".join(map(str, value))) or "none"))
        elif value is None:
            facts.append(Fact(label, "unknown"))
        elif isinstance(value, bool):
            facts.append(Fact(label, "yes" if value else "no"))
        elif isinstance(value, float):
            facts.append(Fact(label, f"{value:,.6g}"))
        elif isinstance(value, int):
            in_gib = key.endswith("_bytes") and value >= 2**20
            facts.append(
                Fact(label.removesuffix(" bytes"), f"{value / 2**30:.3g} GiB") if in_gib else Fact(label, f"{value:,}")
            )
        else:
            facts.append(Fact(label, printable(json.dumps(value, default=str))))
    return facts


def config_facts(config: Mapping[str, Any]) -> list[Fact]:
    """A serving configuration as labels and values; unknown keys are kept."""
    facts = []
    for key, value in config.items():
        if value is None:
            continue
        label = CONFIG_WORDS.get(key, printable(str(key)).replace("_", " "))
        if isinstance(value, int | float) and not isinstance(value, bool):
            text = round_seconds(float(value)) if key.endswith("_s") else f"{value:,}"
            text += " tokens" if key.endswith("_tokens") else ""
        elif isinstance(value, str):
            text = printable(value)
        else:
            text = printable(json.dumps(value, default=str))
        facts.append(Fact(label, text))
    return facts


def is_floor(check: SloCheck) -> bool:
    """Whether the limit is a least value (goodput) and not a greatest one."""
    return check.statistic == "min" or check.metric == "goodput_fraction"


def check_name(check: SloCheck) -> str:
    """What a check looks at: ``TTFT P95``, ``E2E P99/P50``, ``Goodput``."""
    if check.metric == "spread":
        return f"{metric_name(check.statistic)} P99/P50"
    if check.metric.endswith("_fraction"):
        return metric_name(check.metric.removesuffix("_fraction")).capitalize()
    return f"{metric_name(check.metric)} {printable(check.statistic).upper()}"


def check_number(check: SloCheck, value: float | None) -> str:
    """``value`` in the unit of the check."""
    if check.metric in METRIC_NAMES:
        return seconds(value)
    return percent(value) if check.metric.endswith("_fraction") else number(value)


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
    else:
        limit = round_percent(check.limit) if check.metric.endswith("_fraction") else f"{check.limit:g}"
    return f"{'≥' if is_floor(check) else '≤'} {limit}"


def phase_name(phase: Phase | str) -> str:
    """``sustained`` as ``Sustained``."""
    return str(phase).capitalize()
