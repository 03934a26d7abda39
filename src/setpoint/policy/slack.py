"""Slack-sized prefill: the largest prefill budget b with ``t(decodes, b) <= min over running of (deadline - now)``.

Formula: DESIGN.md section 4. A request that does not stream must emit several tokens by its deadline: its steps need
not be alike, so one of them may take ``SPEND`` of the time that its other steps do not need. A share of the slack is kept
back for the error of the prediction: ``MARGIN``, more where steps are seen to last longer (``policy/margin.py``).
Where nothing fits, a floor goes on: the configured tokens, but on a slow machine no more than ``FLOOR_SHARE`` of the tightest
gap pays for, or the floor alone would take all the gap and nobody could be let in beside a reader.
When it is wrong: the step-time model is a line; where a kernel has tiers the last tokens may cost more than predicted.
"""

from __future__ import annotations

from math import inf, isinf

import numpy as np

from setpoint.policy.decisions import StepWork
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import Columns, FloatColumn, IntColumn, StepView

MARGIN = 0.25
SPEND = 0.5
FLOOR_SHARE = 0.1
SURELY = 0.8


def longest_step_s(left_s: FloatColumn, owed: FloatColumn | IntColumn, decode_s: float) -> FloatColumn:
    """Seconds a step may take for requests that owe ``owed`` tokens in ``left_s``; ``decode_s``: what a step takes at least.

    One that owes several (an answer due as a whole) may spend ``SPEND`` of what its remaining steps do not need on the next
    one; where that is less than its time shared evenly, the even share. Shapes (requests,).
    """
    spare_s = np.where(owed > 1, decode_s + SPEND * (left_s - owed * decode_s), -inf)
    return np.asarray(np.maximum(left_s / owed, spare_s), dtype=np.float64)


def least_step_s(model: StepTimeModel) -> float:
    """Seconds that every step takes: ``SURELY`` of one that computes one token of one request, at the machine's usual speed.

    A limit between tokens that is not over it is lost, however the machine does.
    """
    c0, per_token, per_sequence, _, _ = model.usual
    return SURELY * (c0 + per_token + per_sequence)


def step_slack_s(step: StepView, decode_s: float = 0.0, *, least_s: float = 0.0) -> float:
    """Seconds the next step may take before a decoding request misses its deadline; ``inf`` if none has one.

    Streams whose gap is not over ``least_s`` are late at every token whatever is done, and hold nobody up.
    """
    decoding = step.running.prefill_tokens == 0
    if not decoding.any():
        return inf
    left_s = step.running.deadline_s - step.now_s
    # What is late cannot be saved and must not hold up those that can: a stream goes on at its gap, an answer due as a whole
    # does not count any more.
    left_s = np.where(left_s > 0, left_s, step.running.gap_s)
    longest_s = longest_step_s(left_s, step.running.tokens_to_deadline, decode_s)
    return float(np.min(longest_s[decoding & (step.running.gap_s > least_s)], initial=inf))


def decode_work(running: Columns) -> StepWork:
    """The work of a step of the present decodes alone."""
    decoding = running.prefill_tokens == 0
    count = int(decoding.sum())
    context = int(running.context_tokens[decoding].sum())
    return StepWork(tokens=count, sequences=count, kv_tokens_read=context, attention_products=context)


def chunk_context_tokens(step: StepView) -> float:
    """Mean context a prompt token of this step will attend to: of prompts under way, else of those that wait."""
    under_way = step.running.prefill_tokens > 0
    if under_way.any():
        return float((step.running.context_tokens + step.running.prefill_tokens / 2)[under_way].mean())
    return float((step.waiting.context_tokens + step.waiting.prefill_tokens / 2).mean()) if len(step.waiting) else 0.0


def prefill_floor(configured_tokens: int, model: StepTimeModel, *, gap_s: float, context_tokens: float) -> int:
    """The least prefill of a step that has any, at least 1. ``gap_s`` (``inf`` for none): the tightest limit between tokens.

    A gap that not even a step of one decode keeps is lost whatever the floor is. ``context_tokens``: as ``prefill_budget``.
    """
    _, per_token, _, _, per_product = model.coefficients
    if isinf(gap_s) or least_step_s(model) >= gap_s:
        return configured_tokens
    token_s = per_token + per_product * context_tokens
    return max(1, min(configured_tokens, int(FLOOR_SHARE * gap_s / max(token_s, 1e-9))))


def prefill_budget(
    slack_s: float, decodes: StepWork, model: StepTimeModel, *, context_tokens: float, margin: float = MARGIN
) -> int:
    """Largest prefill that keeps the step within the slack less ``margin`` of it; 0 if none does.

    ``context_tokens``: mean context the chunk will attend to (half its prompt, typically). ``slack_s`` must be finite.
    """
    allowed_s = slack_s * (1 - margin)
    _, per_token, per_sequence, per_read, per_product = model.coefficients
    token_s = per_token + per_product * context_tokens
    spare_s = allowed_s - model.predict_s(decodes) - model.change_s - per_sequence - per_read * context_tokens
    if spare_s <= 0:
        return 0
    return int(min(spare_s / max(token_s, 1e-9), 1e9))
