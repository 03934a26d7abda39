"""Tokens by the time at which they count: what came out, and what prompts went in, between given moments.

Tokens count by their arrival. Those of an answer that is not streamed are spread evenly from where its service began (intended
send plus queue wait where the server tells it) to its end: counted at the end they would favour small batches, which have fewer
answers under way when the phase ends. A prompt counts at the first token, or where service began.
"""

from __future__ import annotations

import numpy as np

from setpoint.report.request_samples import SERVED, Requests
from setpoint.statistics import FloatArray


def output_tokens_between(requests: Requests, edges_s: FloatArray) -> FloatArray:
    """Output tokens in each stretch between consecutive ``edges_s``, shape ``[edges - 1]``."""
    times_s = requests.token_times_s
    # A moment equal to the last edge is outside, as it is of every other stretch's end.
    timed, _ = np.histogram(times_s[times_s < edges_s[-1]], edges_s)
    rows = np.flatnonzero(_untimed(requests) & ~np.isnan(requests.end_s) & ~np.isnan(requests.output_tokens))
    begin_s = _begin_s(requests)[rows]
    length_s = np.maximum(requests.end_s[rows] - begin_s, 1e-9)
    done = np.clip((edges_s[:, None] - begin_s) / length_s, 0.0, 1.0)
    spread: FloatArray = np.diff(done, axis=0) @ requests.output_tokens[rows]
    return timed + spread


def prompts_begun_s(requests: Requests) -> FloatArray:
    """When each prompt counts, NaN where it does not. Shape ``[rows]``."""
    return np.where(np.isnan(requests.first_s) & _untimed(requests), _begin_s(requests), requests.first_s)


def _untimed(requests: Requests) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    has_times = np.bincount(requests.token_owner, minlength=len(requests)) > 0
    return requests.is_class(*SERVED) & ~has_times


def _begin_s(requests: Requests) -> FloatArray:
    return requests.intended_s + np.nan_to_num(requests.queue_wait_s)
