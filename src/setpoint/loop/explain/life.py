"""Where the time of one request went: the client, the queue, its prompt, slow or wide steps, the way back.

The request's own moments are the client's; what lies between comes from the decisions and the steps, which are on the same axis
up to the error of the clocks (about half a round trip).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from setpoint.loop.explain.run import Decision, Steps, token_times_s

ORDER = (
    "client_lag",
    "sent_back",
    "preemption",
    "slow_steps",
    "queue_wait",
    "until_taken",
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
    """A request in the engine: moments on the run's axis (``None``: it never came so far), and its preemptions (from, to).

    sent_back_s: from the first time the engine was asked to the last, if it was asked more than once: refused, dropped or
    broken off before, and sent again.
    """

    asked: Decision | None
    joined: Decision | None
    first_token_s: float | None
    ended: Decision | None
    away: list[tuple[float, float]]
    sent_back_s: float = 0.0

    @property
    def asked_s(self) -> float | None:
        """When the engine was asked to take it, the last time."""
        return None if self.asked is None else self.asked.time_s

    @property
    def done_s(self) -> float | None:
        """When its last token was computed, as far as is known."""
        if self.first_token_s is None or self.ended is None:
            return self.first_token_s
        return max(self.first_token_s, self.ended.time_s)

    def away_s(self, begin_s: float, end_s: float) -> float:
        """Seconds of the span in which it had no place, having lost it."""
        return sum(max(0.0, min(to, end_s) - max(since, begin_s)) for since, to in self.away)


def life_of(decisions: list[Decision]) -> Life:
    """The last attempt of a request (a client may send it again), and since when it had been asked for."""
    begin = max((n for n, each in enumerate(decisions) if each.kind in ("admit", "reject")), default=0)
    own = decisions[begin:]
    asked = own[0] if own and own[0].kind in ("admit", "reject") else None
    first_s = next((each.time_s for each in decisions if each.kind in ("admit", "reject")), None)
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
        sent_back_s=asked.time_s - first_s if asked is not None and first_s is not None else 0.0,
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
    asked_s, joined_s, first_s, done_s = life.asked.time_s, life.joined.time_s, life.first_token_s, life.done_s
    stop_s = done_s if to_end and done_s is not None else first_s
    parts["sent_back"] = max(0.0, life.sent_back_s)
    parts["until_taken"] = max(0.0, asked_s - parts["sent_back"] - sent_s)
    parts["queue_wait"] = max(0.0, joined_s - asked_s)
    parts["preemption"] = life.away_s(joined_s, stop_s)
    spans = {"long_prefill": _span_parts("long_prefill", (joined_s, first_s), life, steps, costs)}
    if to_end:
        spans["crowded_steps"] = _span_parts("crowded_steps", (first_s, stop_s), life, steps, costs)
    for found in spans.values():
        for name, part_s in found.items():
            parts[name] = parts.get(name, 0.0) + part_s
    whole_s = (last_s or stop_s) - row["intended_s"]
    parts["delivery"] = max(0.0, whole_s - sum(parts.values()))
    return parts


def token_parts(row: Mapping[str, Any], life: Life | None, steps: Steps | None, costs: StepCosts | None) -> dict[str, float]:
    """As ``time_parts``, of the time between the first token and the last alone: nothing before it lengthens a TPOT."""
    first_s, last_s = row["first_token_s"], row["last_token_s"] or row["ended_s"]
    whole_s = last_s - first_s if first_s is not None and last_s is not None else 0.0
    if life is None or life.first_token_s is None or life.done_s is None:
        return {"in_server": max(0.0, whole_s)}
    span = life.first_token_s, life.done_s
    parts = {"preemption": life.away_s(*span), **_span_parts("crowded_steps", span, life, steps, costs)}
    return {**parts, "delivery": max(0.0, whole_s - sum(parts.values()))}


def _span_parts(
    rest: str, span: tuple[float, float], life: Life, steps: Steps | None, costs: StepCosts | None
) -> dict[str, float]:
    """Seconds of a span in which it had a place: of slow steps, of others' prompts beside its tokens, and the ``rest``."""
    begin_s, end_s = span
    in_span_s = max(0.0, end_s - begin_s - life.away_s(begin_s, end_s))
    slow_s = wide_s = 0.0
    if steps is not None and costs is not None:
        some = within(steps, begin_s, end_s)
        slow_s = min(in_span_s, float(costs.slow_s[some].sum()))
        if rest == "crowded_steps":
            wide_s = min(in_span_s - slow_s, float(costs.prompts_s[some].sum()))
    return {"slow_steps": slow_s, "wide_steps": wide_s, rest: in_span_s - slow_s - wide_s}


def cause_of(parts: Mapping[str, float], excess_s: float) -> str:
    """The first cause in ``ORDER`` without which the limit had been kept; if none alone would do, the largest."""
    for name in ORDER:
        if parts.get(name, 0.0) >= excess_s:
            return name
    return max(ORDER, key=lambda name: parts.get(name, 0.0))


def gaps_over(row: Mapping[str, Any], limit_s: float) -> int:
    """How many of the request's gaps are over ``limit_s``."""
    return int(np.count_nonzero(np.diff(token_times_s(row)) > limit_s))


def gap_causes(row: Mapping[str, Any], life: Life | None, steps: Steps | None, limit_s: float) -> dict[str, int]:
    """Why each of the request's gaps over ``limit_s`` (the ``MOST_GAPS`` longest) was that long: a count by cause.

    The longest step that ended between the two tokens, as the engine saw it, decides (``_step_cause``). If no step was that
    long, the gap arose on the way to the client.
    """
    times = token_times_s(row)
    gaps = np.diff(times)
    places = np.flatnonzero(gaps > limit_s)
    places = places[np.argsort(-gaps[places], kind="stable")[:MOST_GAPS]]
    counts: dict[str, int] = {}
    if life is None or steps is None or life.first_token_s is None:
        return {"in_server": len(places)} if len(places) else counts
    way_s = float(times[0]) - life.first_token_s
    ends, seconds = steps.measured.end_s, steps.seconds
    for place in places.tolist():
        begin_s, end_s = times[place] - way_s, times[place + 1] - way_s
        some = slice(int(np.searchsorted(ends, begin_s + 1e-4)), int(np.searchsorted(ends, end_s + 1e-3)))
        name = "delivery"
        if any(a < end_s and b > begin_s for a, b in life.away):
            name = "preemption"
        elif some.stop > some.start:
            longest = some.start + int(np.argmax(seconds[some]))
            if seconds[longest] > 0.8 * limit_s:
                name = _step_cause(steps, longest, float(seconds[longest]), float(gaps[place]) - limit_s)
        counts[name] = counts.get(name, 0) + 1
    return counts


def _step_cause(steps: Steps, place: int, took_s: float, excess_s: float) -> str:
    """Slow if the limit had been kept had it taken what was predicted; else wide, or without prompts in it simply large."""
    predicted_s = float(steps.predicted_s[place])
    if took_s - predicted_s >= excess_s:
        return "slow_steps"
    return "wide_steps" if steps.measured.prefill_tokens[place] > 0 else "crowded_steps"
