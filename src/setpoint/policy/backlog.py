"""From columns to a queue that can be played forward: who runs, who is ahead, how long a step may take."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from setpoint.policy.forecast import Decoding, Machine, Prompt
from setpoint.policy.lengths import LONG, TYPICAL, OutputLengths
from setpoint.policy.slack import MARGIN, decode_work, least_step_s, longest_step_s, prefill_floor
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import Columns, FloatColumn, IntColumn, KvView

KV_WATERMARK = 0.02
MOST_AHEAD = 256  # prompts played one by one; who is further back is far from its turn


@dataclass(frozen=True, slots=True)
class StepLimits:
    """What a step may be at most: places, tokens, and the least prefill of a step that has any."""

    max_running: int
    token_budget: int
    floor_tokens: int


def tightest_gap_s(*parts: Columns, least_s: float = 0.0) -> float:
    """The tightest gap between tokens that anybody's limits allow; ``inf`` where nobody streams under a limit.

    A limit that is not over ``least_s`` (``least_step_s``) cannot be kept, is lost whatever is done, and binds nobody.
    """
    kept = [part.gap_s[part.gap_s > least_s] for part in parts]
    return min((float(gaps.min()) for gaps in kept if len(gaps)), default=inf)


def pace_s(running: Columns, lengths: OutputLengths, now_s: float, model: StepTimeModel) -> float:
    """Seconds a step may take for every answer due as a whole, by its likely length; those already lost do not count."""
    whole = np.isinf(running.gap_s) & np.isfinite(running.deadline_s) & (running.prefill_tokens == 0)
    if not whole.any():
        return inf
    left_s = running.deadline_s - now_s
    whole &= left_s > 0
    if not whole.any():
        return inf
    decode_s = model.predict_s(decode_work(running)) + model.change_s
    return float(np.min(longest_step_s(left_s[whole], lengths.remaining(running, LONG)[whole], decode_s)))


def machine_of(
    model: StepTimeModel,
    limits: StepLimits,
    running: Columns,
    waiting: Columns,
    *,
    allowed_s: float,
    margin: float = MARGIN,
) -> Machine:
    """The step-time model as a line at the present mean contexts; ``allowed_s`` before the ``margin`` of slack.

    While there are prompts, a step rarely has the shape of the one before: each is taken to cost that change.
    """
    c0, per_token, per_sequence, per_read, per_product = model.coefficients
    decoding = running.prefill_tokens == 0
    context = _mean(running.context_tokens[decoding]) if decoding.any() else _mean(waiting.prefill_tokens)
    chunk_context = _mean(waiting.context_tokens + waiting.prefill_tokens / 2)
    gap_s = tightest_gap_s(running, waiting, least_s=least_step_s(model))
    return Machine(
        base_s=c0 + per_sequence + model.change_s,
        token_s=per_token + per_product * chunk_context,
        sequence_s=per_token + per_sequence + (per_read + per_product) * context,
        allowed_s=allowed_s * (1 - margin),
        floor_tokens=prefill_floor(limits.floor_tokens, model, gap_s=gap_s, context_tokens=chunk_context),
        budget_tokens=limits.token_budget,
    )


def decoding_of(running: Columns, lengths: OutputLengths, kv: KvView, *, max_running: int) -> Decoding:
    """Answers under way, the places left beside everything that runs, and the cache left beside what runs will still need."""
    decodes = running.prefill_tokens == 0
    left = lengths.remaining(running, TYPICAL)
    free = (kv.free_blocks - KV_WATERMARK * kv.blocks) * kv.block_tokens - float(left.sum())
    return Decoding(
        tokens_left=left[decodes].tolist(),
        kv_held=(running.context_tokens[decodes] + left[decodes]).tolist(),
        places=max_running - len(running),
        kv_free=free,
    )


def prompts_of(
    columns: Columns, index: IntColumn, lengths: OutputLengths, *, joined: bool, due_s: FloatColumn | None = None
) -> list[Prompt]:
    """Rows ``index`` of ``columns``, in that order, as prompts; ``due_s`` (all rows) from now, where anybody can be doomed."""
    if not len(index):
        return []
    tokens = columns.prefill_tokens[index].tolist()
    output = lengths.remaining(columns, TYPICAL)[index].tolist()
    due = [inf] * len(tokens) if due_s is None else due_s[index].tolist()
    return [Prompt(t, o, 0.0 if joined else t + o, joined, d) for t, o, d in zip(tokens, output, due, strict=True)]


def under_way(running: Columns) -> IntColumn:
    """Indices of the running requests whose prompt is not computed yet."""
    return np.asarray(np.flatnonzero(running.prefill_tokens > 0), dtype=np.int64)


def _mean(values: FloatColumn | IntColumn) -> float:
    return float(values.sum()) / len(values) if len(values) else 0.0
