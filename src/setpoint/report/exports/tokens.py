"""A row for each output token, from the request table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from setpoint.record.columns import TOKEN_COLUMNS


def tokens_table(requests: pa.Table) -> pa.Table:
    """``TOKEN_COLUMNS`` of a table of ``REQUEST_COLUMNS``: tokens in the order of their requests' rows.

    The gap is null for the first token of an answer. Tokens whose time is not known (answers that are not streamed) have
    no row.
    """
    lists = requests["token_times_s"].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    times_s = np.asarray(pc.list_flatten(lists).to_numpy(zero_copy_only=False), dtype=np.float64)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    index = np.arange(len(times_s)) - np.repeat(starts, lengths)
    gaps_s = np.diff(times_s, prepend=np.nan)
    rows = requests.select(["candidate", "request_id", "phase"]).take(pa.array(owner))
    columns = [rows[name].combine_chunks() for name in rows.column_names]
    columns += [pa.array(index, pa.int32()), pa.array(times_s, pa.float64())]
    columns.append(pa.array(gaps_s, pa.float64(), mask=index == 0))
    return pa.Table.from_arrays(columns, schema=TOKEN_COLUMNS)
