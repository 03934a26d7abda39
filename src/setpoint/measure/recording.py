"""The rows of a run as the table that ``requests.parquet`` holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from setpoint.measure.outcome import RequestOutcome
from setpoint.record.columns import REQUEST_COLUMNS

_AS_THEY_ARE = tuple(
    name for name in REQUEST_COLUMNS.names if name not in ("candidate", "token_times_s", "error", "finish_reason")
)


def requests_table(rows: Sequence[RequestOutcome], candidate: str) -> pa.Table:
    """One row a request, columns as ``record.columns.REQUEST_COLUMNS``, in order of the intended send."""
    rows = sorted(rows, key=lambda row: (row.intended_s, row.index))
    columns: dict[str, pa.Array] = {
        name: pa.array([getattr(row, name, None) for row in rows], REQUEST_COLUMNS.field(name).type) for name in _AS_THEY_ARE
    }
    columns["candidate"] = pa.array([candidate] * len(rows), pa.string())
    columns["error"] = _texts([row.error or None for row in rows])
    columns["finish_reason"] = _texts([row.finish_reason for row in rows])
    columns["token_times_s"] = _lists([row.token_times_s for row in rows])
    return pa.Table.from_arrays([columns[name] for name in REQUEST_COLUMNS.names], schema=REQUEST_COLUMNS)


def named_table(table: pa.Table | None, candidate: str) -> pa.Table | None:
    """The server's steps or decisions with the candidate's name written in; ``None`` where the engine is not ours."""
    if table is None:
        return None
    place = table.schema.get_field_index("candidate")
    return table.set_column(place, table.schema.field(place), pa.array([candidate] * table.num_rows, pa.string()))


def _texts(values: Sequence[str | None]) -> pa.Array:
    """A column of words from servers; half a character, which no file can hold, becomes a question mark."""
    return pa.array([None if each is None else each.encode("utf-8", "replace").decode() for each in values], pa.string())


def _lists(arrays: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]) -> pa.Array:
    """A list column from one array of times a row, without making a Python object of each."""
    offsets = np.zeros(len(arrays) + 1, dtype=np.int32)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    values = np.concatenate(arrays) if arrays else np.empty(0)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.float64()))
