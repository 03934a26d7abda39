"""The columns of the Parquet files of a run. Apart from ``record``: not every command that reads a report needs Arrow."""

from __future__ import annotations

import pyarrow as pa

REQUEST_COLUMNS = pa.schema(
    [
        pa.field("candidate", pa.string()),
        pa.field("request_id", pa.string()),
        pa.field("phase", pa.string()),
        # All times are seconds on one monotonic axis whose zero is the start of the candidate's run.
        pa.field("intended_s", pa.float64()),
        pa.field("sent_s", pa.float64()),
        pa.field("connected_s", pa.float64()),
        pa.field("headers_s", pa.float64()),
        pa.field("first_token_s", pa.float64()),
        pa.field("last_token_s", pa.float64()),
        pa.field("ended_s", pa.float64()),
        pa.field("request_class", pa.string()),
        pa.field("status", pa.int32()),
        pa.field("error", pa.string()),
        pa.field("finish_reason", pa.string()),
        pa.field("streaming", pa.bool_()),
        pa.field("prompt_tokens", pa.int32()),
        pa.field("output_tokens", pa.int32()),
        pa.field("cached_tokens", pa.int32()),
        pa.field("ttft_s", pa.float64()),
        pa.field("tpot_s", pa.float64()),
        pa.field("e2e_s", pa.float64()),
        pa.field("max_gap_s", pa.float64()),
        pa.field("queue_wait_s", pa.float64()),
        # Times of output-token arrivals at the socket, one entry a token (a chunk of m tokens repeats its time m times).
        pa.field("token_times_s", pa.list_(pa.float64())),
        # The conversation a request belongs to and its place in it; the profile of a mix it was drawn from.
        pa.field("session", pa.string()),
        pa.field("turn", pa.int32()),
        pa.field("profile", pa.string()),
        # How often it was sent (a client that retries); when the client took it up; what the last refusal asked to wait.
        pa.field("attempts", pa.int32()),
        pa.field("dispatched_s", pa.float64()),
        pa.field("retry_after_s", pa.float64()),
        # When a connection began to be opened for it; null if an open one was used again (as connected_s).
        pa.field("connect_started_s", pa.float64()),
    ]
)

LATER_REQUEST_COLUMNS = ("session", "turn", "profile", "attempts", "dispatched_s", "retry_after_s", "connect_started_s")
"""Columns that tables written by earlier versions lack; they are read as null."""

STEP_COLUMNS = pa.schema(
    [
        pa.field("candidate", pa.string()),
        pa.field("step", pa.int64()),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("predicted_s", pa.float64()),
        pa.field("prefill_tokens", pa.int32()),
        pa.field("decode_tokens", pa.int32()),
        pa.field("sequences", pa.int32()),
        pa.field("kv_tokens_read", pa.int64()),
        pa.field("attention_products", pa.int64()),
        pa.field("running", pa.int32()),
        pa.field("waiting", pa.int32()),
        pa.field("kv_used_blocks", pa.int32()),
        pa.field("kv_blocks", pa.int32()),
        pa.field("prefill_budget_tokens", pa.int32()),
        pa.field("preempted", pa.int32()),
        pa.field("shed", pa.int32()),
        pa.field("reason", pa.string()),
        # Requests with a draft in the step, draft tokens verified and accepted, and seconds that drafting took before start_s.
        pa.field("drafts", pa.int32()),
        pa.field("drafted", pa.int32()),
        pa.field("accepted", pa.int32()),
        pa.field("draft_s", pa.float64()),
    ]
)

LATER_STEP_COLUMNS = ("drafts", "drafted", "accepted", "draft_s")
"""As ``LATER_REQUEST_COLUMNS``."""

DECISION_COLUMNS = pa.schema(
    [
        pa.field("candidate", pa.string()),
        # Serial number since the server started; a gap in it means that some were overwritten before they were read.
        pa.field("decision", pa.int64()),
        # On the same axis as requests and steps.
        pa.field("time_s", pa.float64()),
        # The step it belongs to (``STEP_COLUMNS``): joins, preempts and sheds are made at its beginning; of an end it is the
        # last one that ended, of an admission the next one that will.
        pa.field("step", pa.int64()),
        # ``admit``, ``reject``, ``join``, ``preempt``, ``shed`` or ``end``.
        pa.field("kind", pa.string()),
        # The ``x-request-id``, as in ``REQUEST_COLUMNS``; of a preemption also that of the request that needed the blocks.
        pa.field("request_id", pa.string()),
        pa.field("other_id", pa.string()),
        # Why: a code, and the numbers behind it by name (docs/explain.md lists both).
        pa.field("code", pa.string()),
        pa.field("operands", pa.map_(pa.string(), pa.float64())),
    ]
)

SERVER_COLUMNS = pa.schema(
    [
        pa.field("candidate", pa.string()),
        # On the same axis as the requests: the middle of the scrape.
        pa.field("time_s", pa.float64()),
        # What was read (``running``, ``waiting``, ``kv_usage``, ...; counters as scraped) and its value.
        pa.field("name", pa.string()),
        pa.field("value", pa.float64()),
    ]
)

TOKEN_COLUMNS = pa.schema(
    [
        pa.field("candidate", pa.string()),
        pa.field("request_id", pa.string()),
        pa.field("phase", pa.string()),
        # The place of the token in its answer, from 0, its arrival, and the gap before it (null for the first).
        pa.field("index", pa.int32()),
        pa.field("time_s", pa.float64()),
        pa.field("gap_s", pa.float64()),
    ]
)
