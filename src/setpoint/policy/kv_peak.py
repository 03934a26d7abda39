"""Who may join without driving others out of the cache later: the most KV that the running and the joining will hold at once.

With what each holds and is expected to add, longest of the latter first, (held_1, left_1), ..., the cache is fullest just
before one of them ends:

    peak = max over i of (held_1 + ... + held_i) + i x left_i

A request joins while that is at most ``OVERCOMMIT`` times the cache. One that is alone always may. Source: Gong et al.,
Past-Future Scheduler for LLM Serving under SLA Guarantees, ASPLOS 2025. What is held is scaled to the blocks that are really in
use, as shared prefixes are held once; each request's last block counts as half empty.

Defaults: a tenth more than the cache, for lengths are guesses: less costs throughput, more preempts
(``benchmarks/kv/preemption_waste.py``). ``QUANTILE`` of the learned remaining length (``policy/lengths.py``); where too few
answers have ended to know, one block more, or at most the cap: caps are mostly far above what answers come to, and places would
stay empty. When it is wrong: lengths are learned, so answers that all get longer at once still preempt.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from setpoint.policy.lengths import OutputLengths
from setpoint.policy.views import Columns, FloatColumn, IntColumn, KvView, taken

QUANTILE = 0.5
OVERCOMMIT = 1.1


def peak_tokens(held: FloatColumn, left: FloatColumn) -> float:
    """The formula at the head, in tokens. Shapes (requests,)."""
    if not len(held):
        return 0.0
    order = np.argsort(-left, kind="stable")
    return float((np.cumsum(held[order]) + np.arange(1, len(held) + 1) * left[order]).max())


def joins_that_stay(running: Columns, waiting: Columns, joining: IntColumn, kv: KvView, lengths: OutputLengths) -> IntColumn:
    """The first of ``joining`` (indices of ``waiting``, in order) that may join now; at least one where nobody runs."""
    if not len(joining):
        return joining
    coming = taken(waiting, joining)
    if _caps_fit(running, coming, kv):
        return joining
    held = _held(running, kv)
    more = (coming.context_tokens + coming.prefill_tokens + kv.block_tokens / 2).astype(np.float64)
    left, more_left = _left(running, kv, lengths), _left(coming, kv, lengths)
    room = OVERCOMMIT * kv.blocks * kv.block_tokens
    if held.sum() + left.sum() + more.sum() + more_left.sum() <= room:
        return joining

    def fits(count: int) -> bool:
        return peak_tokens(np.append(held, more[:count]), np.append(left, more_left[:count])) <= room

    # Whoever joins only adds to the peak, so the most that fit are found by halving.
    few = bisect_left(range(1, len(joining) + 1), True, key=lambda count: not fits(count))
    return joining[: max(few, 0 if len(running) else 1)]


def _caps_fit(running: Columns, coming: Columns, kv: KvView) -> bool:
    """Whether all would stay in the cache if every answer came to its cap: the common case, told without a forecast."""
    used = (kv.blocks - kv.free_blocks) * kv.block_tokens
    most = int((running.prefill_tokens + running.cap_tokens - running.emitted_tokens).sum())
    more = int((coming.context_tokens + coming.prefill_tokens + coming.cap_tokens - coming.emitted_tokens).sum())
    blocks_half_empty = kv.block_tokens * (len(running) + len(coming))
    return used + most + more + blocks_half_empty <= kv.blocks * kv.block_tokens


def _left(columns: Columns, kv: KvView, lengths: OutputLengths) -> FloatColumn:
    """Tokens that each is expected to emit yet."""
    most = np.maximum(columns.cap_tokens - columns.emitted_tokens, 1)
    unknown = np.minimum(most, kv.block_tokens).astype(np.float64)
    return np.where(lengths.known(columns), lengths.remaining(columns, QUANTILE), unknown)


def _held(running: Columns, kv: KvView) -> FloatColumn:
    """Tokens that each of ``running`` holds or is about to, scaled so that their sum is what is in use."""
    held = (running.context_tokens + running.prefill_tokens + kv.block_tokens / 2).astype(np.float64)
    total = float(held.sum())
    used = float((kv.blocks - kv.free_blocks) * kv.block_tokens)
    return np.asarray(held * min(1.0, used / total) if total > 0 else held, dtype=np.float64)
