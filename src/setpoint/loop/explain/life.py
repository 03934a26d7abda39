"""Where the time of one request went: the client, the queue, its prompt, slow or wide steps, the way back.

The request's own moments are the client's; what lies between comes from the decisions and the steps, which are on the same axis
up to the error of the clocks (about half a round trip).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from setpoint.loop.explain.run import Decision, Steps

ORDER = (
    "client_lag",
    "preemption",
    "slow_steps",
    "queue_wait",
    "long_prefill",
    "wide_steps",
    "crowded_steps",
    "delivery",
    "in_server",
)
"""In this order a cause is looked for: the first that alone would have made the difference."""
MOST_GAPS = 64


@dataclass(frozen=True, slots=True)
class Life:
    """A request in the engine: moments on the run's axis (``None``: it never came so far), and its preemptions (from, to)."""

    asked: Decision | None
    joined: Decision | None
    first_token_s: float | None
    ended: Decision | None
    away: list[tuple[float, float]]

    @property
    def asked_s(self) -> float | None:
        """When the engine was asked to take it."""
        return None if self.asked is None else self.asked.time_s


def life_of(decisions: list[Decision]) -> Life:
    """The last attempt of a request (a client may send it again)."""
    begin = max((n for n, each in enumerate(decisions) if each.kind in ("admit", "reject")), default=0)
    own = decisions[begin:]
    asked = own[0] if own and own[0].kind in ("admit", "reject") else None
    ended = next((each for each in own if each.kind == "end"), None)
    after_s = None if ended is None else ended.operands.get("first_token_after_s")
    away, since_s = [], None
    for each in own:
        if each.kind == "preempt":
            since_s = each.time_s
        elif each.kind in ("join", "end", "shed") and since_s is not None:
            away.append((since_s, each.time_s))
            since_s = None
    return Life(
        asked=asked,
        joined=next((each for each in own if each.kind == "join"), None),
        first_token_s=None if asked is None or after_s is None else asked.time_s + after_s,
        ended=ended,
        away=away,
    )


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Seconds of every step: beyond its prediction, and what the prompt tokens in it are predicted to cost."""

    slow_s: np.ndarray[Any, np.dtype[np.float64]]
    prompts_s: np.ndarray[Any, np.dtype[np.float64]]

    @classmethod
    def of(cls, steps: Steps, token_s: float) -> StepCosts:
        """``token_s``: seconds a prompt token takes, of the fitted model."""
        predicted = np.where(np.isnan(steps.predicted_s), steps.seconds, steps.predicted_s)
        return cls(np.maximum(0.0, steps.seconds - predicted), np.minimum(predicted, token_s * steps.measured.prefill_tokens))


def within(steps: Steps, begin_s: float, end_s: float) -> slice:
    """The steps that began in the span."""
    starts = steps.measured.start_s
    return slice(int(np.searchsorted(starts, begin_s - 1e-6)), int(np.searchsorted(starts, end_s - 1e-6)))


def time_parts(
    row: Mapping[str, Any], life: Life | None, steps: Steps | None, costs: StepCosts | None, *, to_end: bool
) -> dict[str, float]:
    """Seconds from the intended send to the first token, or ``to_end`` to the last, by cause (``ORDER``); they sum up.

    Without decisions only the client's lag and, where the server tells it, the queue wait are known; the rest is ``in_server``.
    """
    last_s = (row["last_token_s"] or row["ended_s"]) if to_end else row["first_token_s"]
    sent_s = row["sent_s"] if row["sent_s"] is not None else row["intended_s"]
    parts = {"client_lag": max(0.0, sent_s - row["intended_s"])}
    if life is None or life.asked is None or life.joined is None or life.first_token_s is None:
        parts["queue_wait"] = row["queue_wait_s"] or 0.0
        parts["in_server"] = max(0.0, (last_s or sent_s) - sent_s - parts["queue_wait"])
        return parts
    ended_s = life.ended.time_s if life.ended is not None else life.first_token_s
    stop_s = max(life.first_token_s, ended_s) if to_end else life.first_token_s
    parts["queue_wait"] = max(0.0, life.joined.time_s - life.asked.time_s)
    parts["preemption"] = sum(max(0.0, min(to, stop_s) - begin) for begin, to in life.away if begin < stop_s)
    spans = {"long_prefill": (life.joined.time_s, life.first_token_s)}
    if to_end:
        spans["crowded_steps"] = (life.first_token_s, stop_s)
    for name, (begin_s, end_s) in spans.items():
        in_span_s = max(0.0, end_s - begin_s - sum(max(0.0, min(b, end_s) - max(a, begin_s)) for a, b in life.away))
        slow_s = wide_s = 0.0
        if steps is not None and costs is not None:
            some = within(steps, begin_s, end_s)
            slow_s = min(in_span_s, float(costs.slow_s[some].sum()))
            if name == "crowded_steps":
                wide_s = min(in_span_s - slow_s, float(costs.prompts_s[some].sum()))
        parts["slow_steps"] = parts.get("slow_steps", 0.0) + slow_s
        parts["wide_steps"] = parts.get("wide_steps", 0.0) + wide_s
        parts[name] = in_span_s - slow_s - wide_s
    whole_s = (last_s or stop_s) - row["intended_s"]
    parts["delivery"] = max(0.0, whole_s - sum(parts.values()))
    return parts


def cause_of(parts: Mapping[str, float], excess_s: float) -> str:
    """The first cause in ``ORDER`` without which the limit had been kept; if none alone would do, the largest."""
    for name in ORDER:
        if parts.get(name, 0.0) >= excess_s:
            return name
    return max(ORDER, key=lambda name: parts.get(name, 0.0))


def gap_causes(row: Mapping[str, Any], life: Life | None, steps: Steps | None, limit_s: float) -> dict[str, int]:
    """Why each of the request's gaps over ``limit_s`` (the ``MOST_GAPS`` longest) was that long: a count by cause.

    The longest step that ended between the two tokens, as the engine saw it, decides: over the limit and predicted under it,
    it was slow; predicted over it, it was wide. If no step was that long, the gap arose on the way to the client.
    """
    times = np.asarray(row["token_times_s"] or (), dtype=np.float64)
    gaps = np.diff(times)
    places = np.flatnonzero(gaps > limit_s)
    places = places[np.argsort(-gaps[places], kind="stable")[:MOST_GAPS]]
    counts: dict[str, int] = {}
    if life is None or steps is None or life.first_token_s is None:
        return {"in_server": len(places)} if len(places) else counts
    way_s = float(times[0]) - life.first_token_s
    ends = steps.measured.end_s
    for place in places.tolist():
        begin_s, end_s = times[place] - way_s, times[place + 1] - way_s
        some = slice(int(np.searchsorted(ends, begin_s + 1e-4)), int(np.searchsorted(ends, end_s + 1e-3)))
        name = "delivery"
        if any(a < end_s and b > begin_s for a, b in life.away):
            name = "preemption"
        elif some.stop > some.start:
            longest = some.start + int(np.argmax(steps.seconds[some]))
            if steps.seconds[longest] > 0.8 * limit_s:
                name = "slow_steps" if not steps.predicted_s[longest] > limit_s else "wide_steps"
                if name == "wide_steps" and not steps.measured.prefill_tokens[longest]:
                    name = "crowded_steps"
        counts[name] = counts.get(name, 0) + 1
    return counts
