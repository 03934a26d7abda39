"""The engine's state as a policy may see it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from setpoint.engine.kv_blocks import BlockPool
from setpoint.engine.sequence import Sequence
from setpoint.policy.views import NO_COLUMNS, Columns, IntColumn, KvView, RequestView


def columns(sequences: Collection[Sequence], *, waiting: bool = False) -> Columns:
    """``sequences`` as columns, in their order; those that wait have their uncached tokens to compute."""
    if not sequences:
        return NO_COLUMNS
    rows = [
        (
            s.sequence_id,
            s.computed,
            s.uncached_tokens if waiting else s.prefill_tokens,
            s.emitted,
            s.tokens_to_deadline,
            s.request.request_class,
            s.max_tokens,
            s.tenant,
        )
        for s in sequences
    ]
    times = [(s.arrived_s, s.deadline_s, s.gap_s) for s in sequences]
    ids, context, prefill, emitted, due, kind, cap, tenant = np.array(rows, dtype=np.int64).T.copy()
    arrived_s, deadline_s, gap_s = np.array(times, dtype=np.float64).T.copy()
    return Columns(ids, arrived_s, deadline_s, context, prefill, emitted, due, kind, cap, gap_s, tenant)


def uncached_column(waiting: Collection[Sequence]) -> IntColumn:
    """What those that wait have to compute."""
    return np.fromiter((s.uncached_tokens for s in waiting), dtype=np.int64, count=len(waiting))


def kv_view(pool: BlockPool) -> KvView:
    """The pool in three numbers."""
    return KvView(blocks=pool.blocks, free_blocks=pool.available, block_tokens=pool.block_tokens)


def request_view(sequence: Sequence) -> RequestView:
    """A sequence that asks for admission."""
    return RequestView(
        request_id=sequence.sequence_id,
        arrived_s=sequence.arrived_s,
        sent_s=sequence.sent_s,
        prompt_tokens=sequence.prompt_tokens,
        uncached_tokens=sequence.uncached_tokens,
        max_output_tokens=sequence.max_tokens,
        streaming=sequence.request.streaming,
        limits=sequence.request.limits,
        request_class=sequence.request.request_class,
        tenant=sequence.tenant,
        fingerprint=sequence.fingerprint,
        answers=sequence.request.answers,
    )
