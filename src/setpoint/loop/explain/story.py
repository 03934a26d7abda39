"""One request's whole story: arrived, admitted because, waited behind, the steps it was in, preempted, late by because."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from setpoint.loop.errors import BadInput
from setpoint.loop.explain.causes import found_for, group_words, missed_limits
from setpoint.loop.explain.explanation import Moment, Story
from setpoint.loop.explain.life import StepCosts
from setpoint.loop.explain.run import Decision, ExplainedRun, rows_of
from setpoint.loop.explain.words import ORDERS, PREEMPTIONS, REFUSALS, asked_words
from setpoint.record import RequestClass
from setpoint.report.format import seconds

MOST_NAMED = 3


def story(run: ExplainedRun, request_id: str, costs: StepCosts | None) -> Story:
    """Raises ``BadInput`` if the run has no such request; a part of its id will do if it is one request's only."""
    rows = rows_of(run.table)
    matching = [row for row in rows if row["request_id"] == request_id] or [
        r for r in rows if request_id in (r["request_id"] or "")
    ]
    if len(matching) != 1:
        some = ", ".join(row["request_id"] for row in (matching or rows)[:MOST_NAMED])
        found = "is not in this run" if not matching else f"fits {len(matching)} requests of this run"
        raise BadInput(f"--request {request_id}: {found}; ids are such as {some}")
    row = matching[0]
    decisions = (run.decisions or {}).get(row["request_id"], [])
    moments = [_intended(row), *(_moment(run, each, decisions) for each in decisions), _ended(row)]
    ordered = sorted(moments, key=lambda each: inf if each.at_s is None else each.at_s)
    if not decisions:
        ordered.insert(1, Moment(None, "what happened inside the server is not recorded in this run"))
    return Story(
        run=str(run.folder),
        candidate=run.candidate.name,
        request_id=row["request_id"],
        outcome=row["request_class"],
        verdict=_verdict(run, row, costs),
        moments=ordered,
    )


def _intended(row: Mapping[str, Any]) -> Moment:
    sent_s = row["sent_s"]
    lag = "" if sent_s is None else f", sent {seconds(max(0.0, sent_s - row['intended_s']))} later"
    return Moment(row["intended_s"], f"due to be sent ({row['phase']}, {row['prompt_tokens'] or 0} prompt tokens){lag}")


def _ended(row: Mapping[str, Any]) -> Moment:
    end_s = row["last_token_s"] or row["ended_s"]
    if row["request_class"] == RequestClass.SHED:
        return Moment(end_s, f"the client got {row['status']}")
    tokens = f"{row['output_tokens'] or 0} tokens"
    if end_s is None:
        return Moment(None, f"no end was seen; {tokens} had come")
    first = f", the first after {seconds(row['ttft_s'])}" if row["ttft_s"] is not None else ""
    return Moment(end_s, f"the client had {tokens}{first}, the last after {seconds(end_s - row['intended_s'])}")


def _moment(run: ExplainedRun, decision: Decision, own: list[Decision]) -> Moment:
    kind = decision.kind
    if kind in ("admit", "reject"):
        words = asked_words(decision)
    elif kind == "join":
        words = _join_words(run, decision, own)
    elif kind == "preempt":
        words = _preempt_words(decision)
    elif kind == "end":
        words = _end_words(decision, own)
    else:
        words = REFUSALS.get(decision.code, f"{kind}: {decision.code}")
    return Moment(decision.time_s, words)


def _join_words(run: ExplainedRun, decision: Decision, own: list[Decision]) -> str:
    operands = decision.operands
    words = f"joined step {decision.step} after waiting {seconds(operands.get('waited_s'))}"
    words += f", {ORDERS.get(decision.code, decision.code)}"
    if operands.get("cached_tokens"):
        words += f"; {operands['cached_tokens']:.0f} prompt tokens were cached"
    if "left_s" in operands:
        left_s = operands["left_s"]
        words += f"; {seconds(left_s)} were left to its deadline" if left_s >= 0 else f"; {seconds(-left_s)} past its deadline"
    ahead, overtaken = _company(run, decision, own)
    if ahead:
        words += f"; waited behind {_named(ahead)}"
    if overtaken:
        words += f"; overtaken by {_named(overtaken)}, which came later"
    return words


def _company(run: ExplainedRun, join: Decision, own: list[Decision]) -> tuple[list[str], list[str]]:
    """Who joined while it waited: those who had come before it, and those who had come after."""
    asked = next((each for each in reversed(own) if each.kind == "admit" and each.decision < join.decision), None)
    if asked is None:
        return [], []
    ahead: list[str] = []
    overtaken: list[str] = []
    for name, decisions in (run.decisions or {}).items():
        joins = [each for each in decisions if each.kind == "join" and asked.decision < each.decision < join.decision]
        if name != join.request_id and joins:
            came = next((each.decision for each in decisions if each.kind == "admit"), -1)
            (ahead if came < asked.decision else overtaken).append(name)
    return ahead, overtaken


def _named(names: list[str]) -> str:
    some = ", ".join(names[:MOST_NAMED])
    return some if len(names) <= MOST_NAMED else f"{some} and {len(names) - MOST_NAMED} more"


def _preempt_words(decision: Decision) -> str:
    rule = PREEMPTIONS.get(decision.code, decision.code)
    lost = decision.operands.get("lost_tokens", 0.0)
    whom = "it had to give its own" if decision.other_id == decision.request_id else f"{decision.other_id} needed one"
    return (
        f"preempted in step {decision.step}: no block was free and {whom}; chosen: {rule}; {lost:.0f} tokens to compute again"
    )


def _end_words(decision: Decision, own: list[Decision]) -> str:
    joined = next((each for each in own if each.kind == "join"), None)
    span = f", in steps {joined.step} to {decision.step}" if joined is not None else ""
    again = decision.operands.get("preemptions", 0.0)
    lost = f", preempted {again:.0f} times" if again else ""
    return f"ended in the engine ({decision.code}) with {decision.operands.get('output_tokens', 0):.0f} tokens{span}{lost}"


def _verdict(run: ExplainedRun, row: Mapping[str, Any], costs: StepCosts | None) -> str:
    outcome = row["request_class"]
    if outcome == RequestClass.OK:
        return "It met every limit."
    missed = missed_limits(run).get(row["request_id"])
    found = found_for(run, row, missed, costs)
    head = group_words(outcome, found.code)
    return f"{head[0].upper()}{head[1:]}: {found.words}."
