"""The requirement, the checks and the configuration in words, for the terminal and for the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from setpoint.record import Phase, Verdict
from setpoint.report.format import (
    printable,
    round_number,
    round_percent,
    round_seconds,
)
from setpoint.requirement import (
    Arrival,
    ArrivalProcess,
    ChoiceTokens,
    ConstantTokens,
    LatencySlo,
    LognormalTokens,
    MixPart,
    Objective,
    Requirement,
    Slos,
    TokenDistribution,
    UniformTokens,
)

METRIC_NAMES = {
    "ttft": "TTFT",
    "itl": "ITL",
    "tpot": "TPOT",
    "e2e": "E2E",
    "queue_wait": "Queue wait",
    "max_gap": "Largest gap",
}
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
    match arrival.process:
        case ArrivalProcess.RAMP:
            return f"from {round_number(arrival.rate_rps)}/s to {round_number(arrival.to_rps or 0.0)}/s, at random (Poisson)"
        case ArrivalProcess.STEP:
            steps = ", ".join(f"{round_number(step.rate_rps)}/s for {round_seconds(step.duration_s)}" for step in arrival.steps)
            return f"{steps}, at random (Poisson)"
        case ArrivalProcess.ON_OFF:
            on, off = arrival.pattern
            return (
                f"{round_number(on.rate_rps)}/s for {round_seconds(on.duration_s)}, then {round_number(off.rate_rps)}/s for "
                f"{round_seconds(off.duration_s)}, at random (Poisson)"
            )
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


def requirement_facts(requirement: Requirement, load: Mapping[str, Any] | None = None) -> list[Fact]:
    """What was asked, in the order a reader wants it; ``load`` as ``record.Report.load``."""
    profile, load = requirement.profile, load or {}
    streamed = "streamed" if profile.streaming else "not streamed"
    facts = [Fact("Model", requirement.model.served_name or requirement.model.source)] if requirement.model.source else []
    shapes = [_shape_words(shape) for shape in profile.shapes]
    facts.append(Fact("Requests", f"{'; '.join(shapes)}; {streamed}"))
    facts.append(Fact("Load" if "trace" in load or "concurrency" in load else "Sustained load", _load_words(requirement, load)))
    if profile.burst is not None and "concurrency" not in load:
        facts.append(Fact("Burst", f"{round_number(profile.burst.rate_rps)}/s for {round_seconds(profile.burst.duration_s)}"))
    if load.get("max_in_flight"):
        facts.append(Fact("Client cap", f"{load['max_in_flight']} in flight; what it holds back waits"))
    if load.get("retries"):
        facts.append(Fact("Retries", f"up to {load['retries']} for a refused or broken-off request"))
    facts.append(Fact("Limits", "; ".join(slo_words(requirement.slo)) or "none"))
    if burst_limits := slo_words(requirement.slo_burst):
        facts.append(Fact("Limits in the burst", "; ".join(burst_limits)))
    facts.append(Fact("Objective", OBJECTIVE_WORDS[requirement.objective]))
    if requirement.price is not None:
        facts.append(Fact("Price", f"{requirement.price.usd_per_hour:g} USD an hour"))
    return facts


def _shape_words(shape: MixPart) -> str:
    words = f"{tokens_words(shape.prompt_tokens)} in"
    if shape.shared_prefix_tokens:
        words += f", the first {shape.shared_prefix_tokens:,} of them shared"
    if shape.prefix_hit_rate is not None:
        words += f", {round_percent(shape.prefix_hit_rate)} of them to be found in a cache"
    if shape.prefix_groups > 1:
        words += f" ({shape.prefix_groups:,} different prefixes)"
    words += f"; {tokens_words(shape.output_tokens)} out"
    if shape.sessions is not None:
        words += f"; conversations of {tokens_words(shape.sessions.turns).replace(' tokens', ' turns')}"
    return f"{shape.name}: {words}" if shape.name else words


def _load_words(requirement: Requirement, load: Mapping[str, Any]) -> str:
    if load.get("trace"):
        speed = load.get("speed_up", 1.0)
        faster = "as it was" if speed == 1.0 else f"{speed:g} times as fast"
        return f"the trace {printable(str(load['trace']))}, {faster}"
    if load.get("concurrency"):
        return f"{load['concurrency']} requests always under way (a closed loop)"
    if load.get("find_knee"):
        return f"the highest rate that meets the limits is searched, from {arrival_words(requirement.profile.arrival)} on"
    return arrival_words(requirement.profile.arrival)


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


def phase_name(phase: Phase | str) -> str:
    """``sustained`` as ``Sustained``."""
    return str(phase).capitalize()
