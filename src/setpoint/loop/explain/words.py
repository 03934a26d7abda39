"""Codes of decisions in plain words, with the numbers behind them."""

from __future__ import annotations

from collections.abc import Mapping

from setpoint.loop.explain.run import Decision
from setpoint.report.format import seconds

REFUSALS = {
    "ttft_would_be": "refused: its first token would have come over the TTFT limit",
    "e2e_would_be": "refused: its answer would have ended over the E2E limit",
    "itl_would_be": "refused: with one answer more, steps would have taken longer than the ITL limit allows",
    "others_would_wait": "refused: its tenant is over its share, and others would have waited too long for their first token",
    "queue_full": "refused: the queue was full",
    "too_early": "refused: it came back before the time it was told",
    "doomed_alone": "dropped while it waited: too late even if it had been alone",
    "doomed_behind": "dropped while it waited: too late behind those ahead of it and beside those being answered",
    "before_engine": "refused by the server before the engine was asked",
    "not_told": "refused; the run does not tell why",
}
LATENESS = {
    "client_lag": "late because the client sent it late",
    "sent_back": "late because it was refused or broken off at first, and sent again",
    "preemption": "late because it was preempted and had to be computed again",
    "slow_steps": "late because steps took longer than predicted (the machine, or the model's error)",
    "queue_wait": "late because it waited for a place",
    "until_taken": "late before the engine was asked: on the way there, or while a step was running",
    "long_prefill": "late because its prompt took long to compute",
    "wide_steps": "late because steps were wide: prompts of others were computed beside its tokens",
    "crowded_steps": "late because its own tokens took long, in steps that went as predicted",
    "delivery": "late on the way: between the engine and the client",
    "in_server": "late in the server; the run does not tell where",
}
ORDERS = {
    "alone": "nobody else wanted the place",
    "arrival": "in order of arrival",
    "deadline": "by deadline, the earliest first",
    "response_ratio": "by waiting time over own work, as nobody has a deadline",
    "tenants": "by turns between tenants, then by deadline",
    "class": "interactive before batch, then by deadline",
    "aged_batch": "a batch request that had waited long went first",
}
PREEMPTIONS = {
    "least_computed": "batch before interactive, then the one with the least computed",
    "newest": "the last to arrive",
}


def asked_words(decision: Decision) -> str:
    """An admission or a refusal in whole."""
    known = _ADMITTED if decision.kind == "admit" else REFUSALS
    return f"{known.get(decision.code, decision.code)}; {asked_numbers(decision)}"


def asked_numbers(decision: Decision) -> str:
    """What was forecast, what is allowed, who was there."""
    operands = decision.operands
    words = compared_words(operands)
    if "max_waiting" in operands:
        words.append(f"{operands['waiting']:.0f} of at most {operands['max_waiting']:.0f} were waiting")
    else:
        words.append(f"{operands.get('waiting', 0):.0f} waited and {operands.get('running', 0):.0f} ran")
    if decision.kind == "reject" and "retry_after_s" in operands:
        words.append(f"told to come back in {seconds(operands['retry_after_s'])}")
    return "; ".join(words)


def compared_words(operands: Mapping[str, float]) -> list[str]:
    """Each limit that an admission looked at."""
    found = []
    for name, shown in (("ttft", "TTFT"), ("e2e", "E2E"), ("itl", "longest step")):
        if f"{name}_limit_s" not in operands or f"{name}_s" not in operands:
            continue
        kept_s = operands.get(f"{name}_margin_s", 0.0)
        margin = f" less a margin of {seconds(kept_s)}" if kept_s else ""
        found.append(f"{shown} forecast {seconds(operands[f'{name}_s'])}, limit {seconds(operands[f'{name}_limit_s'])}{margin}")
    if "others_ttft_s" in operands and "others_ttft_most_s" in operands:
        first_s, most_s = operands["others_ttft_s"], operands["others_ttft_most_s"]
        found.append(f"another tenant's first token in {seconds(first_s)}, at most {seconds(most_s)}")
    return found


SHORT = {
    "client_lag": "client",
    "sent_back": "refused or broken off, and sent again",
    "preemption": "preempted",
    "slow_steps": "slow steps",
    "queue_wait": "waiting",
    "until_taken": "until the engine took it",
    "long_prefill": "own prompt",
    "wide_steps": "prompts of others",
    "crowded_steps": "own tokens",
    "delivery": "on the way",
    "in_server": "in the server",
}
"""The parts of a latency, each in a word or two."""

_ADMITTED = {
    "idle": "admitted: the engine was idle",
    "fits": "admitted: it fitted every limit",
    "queue_has_room": "admitted: the queue had room",
    "with_first": "admitted: with the first answer to its prompt",
    "admission_off": "admitted: admission was off",
}
