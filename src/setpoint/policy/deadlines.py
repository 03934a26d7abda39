"""When the next token of a request is due: computed here, once, for everyone.

First token: sent + TTFT. Next token: min(t_last + ITL, t_first + n * TPOT), each only if declared, n the tokens emitted so
far. A request that does not stream has one deadline, sent + E2E, and its tokens have none; a streaming request with an
E2E limit keeps the earlier of the two.
"""

from __future__ import annotations

from math import inf

import numpy as np

from setpoint.policy.views import FloatColumn, IntColumn, RequestLimits, RequestView


def next_deadline_s(
    limits: RequestLimits,
    *,
    streaming: bool,
    sent_s: float,
    first_token_s: float | None,
    last_token_s: float | None,
    emitted_tokens: int,
) -> float:
    """The moment (same clock as ``sent_s``) by which the next token is due; ``inf`` where no limit applies."""
    end_s = inf if limits.e2e_s is None else sent_s + limits.e2e_s
    if not streaming:
        return end_s
    if first_token_s is None or last_token_s is None:
        return end_s if limits.ttft_s is None else min(end_s, sent_s + limits.ttft_s)
    due_s = end_s
    if limits.itl_s is not None:
        due_s = min(due_s, last_token_s + limits.itl_s)
    if limits.tpot_s is not None:
        due_s = min(due_s, first_token_s + emitted_tokens * limits.tpot_s)
    return due_s


def has_deadline(request: RequestView) -> bool:
    """Whether its first token, or its end, is due at all."""
    return request.limits.e2e_s is not None or (request.streaming and request.limits.ttft_s is not None)


def gap_limit_s(limits: RequestLimits, *, streaming: bool) -> float:
    """Seconds between two tokens of a stream that its limits allow: the lesser of ITL and TPOT; ``inf`` where none applies."""
    if not streaming:
        return inf
    return min(inf if limits.itl_s is None else limits.itl_s, inf if limits.tpot_s is None else limits.tpot_s)


def next_deadlines_s(
    *,
    end_s: FloatColumn,
    itl_s: FloatColumn,
    tpot_s: FloatColumn,
    first_token_s: FloatColumn,
    last_token_s: float,
    emitted_tokens: IntColumn,
) -> FloatColumn:
    """``next_deadline_s`` of many streams whose last token came at the same moment. Shapes (requests,).

    ``end_s``: sent + E2E, ``inf`` without an E2E limit. ``itl_s``: ``inf`` without an ITL limit. Without a TPOT limit
    ``first_token_s`` is ``inf`` and ``tpot_s`` 0. Requests that do not stream have neither.
    """
    return np.minimum(np.minimum(end_s, last_token_s + itl_s), first_token_s + emitted_tokens * tpot_s)
