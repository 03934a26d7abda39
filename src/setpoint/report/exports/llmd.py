"""The summary as llm-d's benchmark report, schema 0.2.1, for tools that compare runs of several load generators.

One report holds one phase, so a run with a burst gives the sustained phase and has the burst among the extensions. What
the schema has no place for stands where it allows additions, under ``results.observability.setpoint``: the classes that
sum to what was offered, goodput, intervals, verdicts, stalls, the client's account of itself, and whole figures of the
burst. A latency whose mean is unknown (requests were cut off) has no entry in the schema, which demands one.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from setpoint import __version__
from setpoint.record import Candidate, Phase, PhaseMeasures, Record, Report, Summary, without_unknown_additions
from setpoint.report.verdicts import in_focus, measures, outcome
from setpoint.report.words import read_requirement
from setpoint.requirement import (
    ChoiceTokens,
    ConstantTokens,
    LognormalTokens,
    RequestProfile,
    TokenDistribution,
    UniformTokens,
)

SCHEMA = "0.2.1"
NAMESPACE = uuid.UUID("4f1f2a3c-6f0e-5d0b-9c55-7a1f6a7d2e11")


def llmd_report(report: Report) -> str:
    """The candidate in focus as a document of the schema, in JSON. The same report gives the same document."""
    candidate = in_focus(report)
    figures = measures(candidate, Phase.SUSTAINED) if candidate is not None else None
    document: dict[str, Any] = {
        "version": SCHEMA,
        "run": _run(report, candidate),
        "scenario": {"load": _load(report)} if _profile(report) is not None else None,
        "results": {
            "request_performance": {"aggregate": _aggregate(figures)} if figures is not None else None,
            "observability": {"drop_rate": _drop_rate(figures), "setpoint": _extensions(report, candidate)},
        },
    }
    return json.dumps(_without_none(document), indent=2, allow_nan=False) + "\n"


def _run(report: Report, candidate: Candidate | None) -> dict[str, Any]:
    figures = measures(candidate, Phase.SUSTAINED) if candidate is not None else None
    started = report.machine.get("started")
    name = (report.requirement or {}).get("name")
    return {
        "uid": str(uuid.uuid5(NAMESPACE, report.to_json())),
        "description": name if isinstance(name, str) else None,
        "keywords": ["setpoint", report.kind, *([candidate.name] if candidate is not None else [])],
        "time": {
            "start": started if isinstance(started, str) else None,
            "end": _later(started, report.machine.get("duration_s")),
            "duration": f"PT{figures.duration_s:g}S" if figures is not None else None,
        },
    }


def _later(started: object, duration_s: object) -> str | None:
    if not isinstance(started, str) or not isinstance(duration_s, int | float):
        return None
    moment = datetime.fromisoformat(started).timestamp() + duration_s
    return datetime.fromtimestamp(moment, UTC).isoformat()


def _profile(report: Report) -> RequestProfile | None:
    requirement = read_requirement(report.requirement)
    return requirement.profile if requirement is not None else None


def _load(report: Report) -> dict[str, Any]:
    profile = _profile(report)
    assert profile is not None
    load = report.load or {}
    closed, traced = load.get("concurrency"), load.get("trace") is not None
    prefix = {
        "prefix_len": {"distribution": "fixed", "value": profile.shared_prefix_tokens},
        "num_groups": profile.prefix_groups,
        "num_users_per_group": 1,
        "num_prefixes": 1,
    }
    return {
        "metadata": {"description": "the request profile as setpoint measured it"},
        "standardized": {
            "tool": "setpoint",
            "tool_version": __version__,
            "parallelism": load.get("workers") or 1,
            "source": "sampled" if traced else "random",
            "input_seq_len": _length(profile.prompt_tokens),
            "output_seq_len": _length(profile.output_tokens),
            "prefix": prefix if profile.shared_prefix_tokens else None,
            "multi_turn": {"enabled": True, "max_turns": _length(profile.sessions.turns)} if profile.sessions else None,
            "rate_qps": profile.arrival.mean_rps if closed is None else None,
            "concurrency": closed,
        },
        "native": {"args": {"command": report.machine.get("command")}, "config": report.requirement},
    }


def _length(tokens: TokenDistribution) -> dict[str, Any]:
    match tokens:
        case ConstantTokens(value=value):
            return {"distribution": "fixed", "value": value}
        case UniformTokens(min=low, max=high):
            return {"distribution": "uniform", "value": (low + high) / 2, "min": low, "max": high}
        case LognormalTokens(median=median, min=low, max=high):
            return {"distribution": "other", "value": median, "min": low, "max": high}
        case ChoiceTokens():
            middle = (tokens.smallest + tokens.largest) / 2
            return {"distribution": "other", "value": middle, "min": tokens.smallest, "max": tokens.largest}


def _aggregate(figures: PhaseMeasures) -> dict[str, Any]:
    ended = figures.ok + figures.late
    return {
        "requests": {
            "total": figures.offered - figures.dropped,
            "failures": figures.failed + figures.shed,
            "incomplete": figures.unfinished,
        },
        "latency": {
            "time_to_first_token": _statistics(figures.ttft_s, "s"),
            "time_per_output_token": _statistics(figures.tpot_s, "s/token"),
            "inter_token_latency": _statistics(figures.itl_s, "s/token"),
            "request_latency": _statistics(figures.e2e_s, "s"),
        },
        "throughput": {
            "input_token_rate": {"units": "tokens/s", "mean": figures.prompt_tokens_per_s},
            "output_token_rate": {"units": "tokens/s", "mean": figures.output_tokens_per_s},
            "total_token_rate": {
                "units": "tokens/s",
                "mean": figures.prompt_tokens_per_s + figures.output_tokens_per_s,
            },
            "request_rate": {"units": "queries/s", "mean": ended / figures.duration_s} if figures.duration_s else None,
        },
    }


def _statistics(found: Summary, units: str) -> dict[str, Any] | None:
    if found.mean is None:
        return None
    levels = {level: getattr(found, level) for level in ("p50", "p90", "p95", "p99", "max")}
    return {"units": units, "mean": found.mean, **levels}


def _drop_rate(figures: PhaseMeasures | None) -> dict[str, Any] | None:
    if figures is None or not figures.offered:
        return None
    return {"units": "fraction", "mean": (figures.shed + figures.dropped) / figures.offered}


def _extensions(report: Report, candidate: Candidate | None) -> dict[str, Any]:
    """What the schema has no place for, in the words of ``report.json``."""
    found: dict[str, Any] = {
        "report_schema": report.schema_version,
        "outcome": str(outcome(report)),
        "validity": report.validity.model_dump(mode="json"),
        "why": report.why,
        "load": report.load,
        "knee": report.knee,
    }
    if candidate is not None:
        found |= {
            "candidate": candidate.name,
            "slo": _dumped(candidate.slo),
            "client": candidate.client,
            "server": candidate.server,
            "phases": {
                str(phase): _dumped(figures)
                for phase in (Phase.SUSTAINED, Phase.BURST)
                if (figures := measures(candidate, phase)) is not None
            },
        }
    return found


def _dumped(record: Record) -> dict[str, Any]:
    return without_unknown_additions(record, record.model_dump(mode="json"))


def _without_none(value: Any) -> Any:
    """Without entries that are unknown; an infinite or undefined number counts as one."""
    if isinstance(value, Mapping):
        cleaned = {key: _without_none(entry) for key, entry in value.items()}
        return {key: entry for key, entry in cleaned.items() if entry is not None}
    if isinstance(value, list | tuple):
        return [_without_none(entry) for entry in value]
    if isinstance(value, float) and value - value != 0:
        return None
    return value
