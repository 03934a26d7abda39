"""What the dashboard reads: ``GET /setpoint/live?since=N``, the present state and the samples from number N on."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import inf, isfinite
from typing import Final

from setpoint import __version__
from setpoint.server.live.book import Ending, Refusal
from setpoint.server.live.view import SAMPLE_COLUMNS, WINDOW_S, LiveView
from setpoint.server.live.window import CheckState, Span
from setpoint.server.live.words import in_words, of_code

REFUSALS_SHOWN: Final = 12
SCHEMA: Final = 1


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


def _plain(value: object) -> int | float | str | bool | None:
    return value if value is None or isinstance(value, int | float | str | bool) else str(value)


def _check(state: CheckState) -> dict[str, object]:
    """``unbounded``: so many requests failed that the percentile has no value."""
    return asdict(state) | {"value": _finite(state.value), "unbounded": state.value == inf}


def _window(span: Span) -> dict[str, object]:
    ended = {str(each): span.count(each) for each in Ending}
    attained = {}
    for metric in span.judged:
        judged = span.count(f"judged_{metric}")
        attained[metric] = {"judged": judged, "met": span.count(f"met_{metric}")}
    return {
        "length_s": round(span.length_s, 3),
        "offered": span.count("offered"),
        "invalid": span.count("invalid"),
        "ended": ended,
        "goodput_fraction": span.share(Ending.OK, *Ending),
        "goodput_rps": span.rate(Ending.OK),
        "offered_rps": span.rate("offered"),
        "attained": attained,
        "prefix_hit_rate": span.share("prefix_hits", "prefix_queries"),
        "output_tokens_per_s": span.rate("output_tokens"),
        "prompt_tokens_per_s": span.rate("prompt_tokens"),
        "preemptions": span.count("preemptions"),
        "steps_per_s": span.rate("steps"),
    }


def _refusal(one: Refusal, now_s: float) -> dict[str, object]:
    return {
        "ago_s": round(max(0.0, now_s - one.at_s), 1),
        "name": one.name,
        "what": of_code(one.code),
        "why": in_words(one.reason),
        "retry_after_s": one.retry_after_s,
    }


def _engine(view: LiveView) -> dict[str, object] | None:
    gauges = view.gauges
    if gauges is None:
        return None
    error = gauges.prediction_error
    return {
        "waiting": gauges.waiting,
        "running": gauges.running,
        "kv_usage": gauges.kv_used_blocks / gauges.kv_blocks if gauges.kv_blocks else 0.0,
        "kv_peak": view.kv_peak,
        "kv_blocks": gauges.kv_blocks,
        "prediction_source": gauges.prediction_source,
        "prediction_error": None if error is None else {"steps": error.steps, "p50": error.median, "p95": error.p95},
        "admissions": [
            {"decision": decision, "reason": of_code(code), "count": count}
            for (decision, code), count in sorted(gauges.admissions.items(), key=lambda item: -item[1])
        ],
    }


def _steps(view: LiveView) -> list[dict[str, object]]:
    seen = view.steps
    rows = sorted(seen.reasons.items(), key=lambda item: -item[1])
    return [{"what": of_code(code), "count": count, "why": in_words(seen.newest[code])} for code, count in rows]


def live_json(view: LiveView, since: int, *, now_s: float, model: str, health: str) -> str:
    """The whole answer as JSON text. ``now_s`` is on the clock of the view's ticks."""
    samples, following = view.samples(since)
    refusals = list(view.book.refusals)[-REFUSALS_SHOWN:][::-1]
    head: dict[str, object] = {
        "schema": SCHEMA,
        "version": __version__,
        "model": model,
        "health": health,
        "up_s": round(view.up_s, 1),
        "requirement": view.objectives.name,
        "about": {name: _plain(value) for name, value in view.about.items()},
        "window_s": WINDOW_S,
        "checks": [_check(each) for each in view.checks()],
        "window": _window(view.window()),
        "unfinished": view.book.unfinished,
        "engine": _engine(view),
        "sheds": [{"what": of_code(code), "count": count} for code, count in view.book.shed_reasons.items()],
        "refusals": [_refusal(each, now_s) for each in refusals],
        "steps": _steps(view),
        "columns": SAMPLE_COLUMNS,
        "next": following,
    }
    return f'{json.dumps(head)[:-1]},"samples":[{",".join(samples)}]}}'
