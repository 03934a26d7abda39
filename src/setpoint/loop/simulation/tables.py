"""What became of the requests as a run's table (``record.columns.REQUEST_COLUMNS``); times of single tokens are not kept."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from setpoint.loop.simulation.figures import phase_requests
from setpoint.record import RequestClass
from setpoint.record.columns import REQUEST_COLUMNS
from setpoint.simulate.run import Simulated

STATUS = {RequestClass.OK: 200, RequestClass.SHED: 503, RequestClass.FAILED: 400}


def request_table(done: Simulated, candidate: str) -> pa.Table:
    """One row a request, in the order of sends; completed ones are ``ok`` until they are judged."""
    requests, load, ledger = phase_requests(done), done.load, done.ledger
    size = len(requests)
    names = np.array([str(each.phase) for each in load.phases])[load.phase]
    status = np.select([requests.is_class(each) for each in STATUS], list(STATUS.values()), default=0)
    columns = {
        "candidate": pa.array([candidate] * size),
        "request_id": pa.array(np.arange(size).astype(str)),
        "phase": pa.array(names),
        "intended_s": load.sent_s,
        "sent_s": load.sent_s,
        "headers_s": requests.first_s,
        "first_token_s": requests.first_s,
        "last_token_s": requests.last_s,
        "ended_s": requests.end_s,
        "request_class": pa.array(requests.classes),
        "status": pa.array(status, pa.int32(), mask=status == 0),
        "streaming": requests.streaming,
        "prompt_tokens": load.prompt_tokens,
        "output_tokens": ledger.tokens,
        "cached_tokens": requests.cached_tokens,
        "ttft_s": requests.ttft_s(),
        "tpot_s": requests.tpot_s(),
        "e2e_s": requests.e2e_s(),
        "max_gap_s": ledger.gap_s,
        "queue_wait_s": requests.queue_wait_s,
        "retry_after_s": ledger.retry_after_s,
    }
    arrays = []
    for field in REQUEST_COLUMNS:
        values = columns.get(field.name)
        if values is None:
            arrays.append(pa.nulls(size, field.type))
        elif isinstance(values, pa.Array):
            arrays.append(values.cast(field.type))
        else:
            whole = np.asarray(values)
            mask = np.isnan(whole) if whole.dtype.kind == "f" else np.zeros(size, dtype=np.bool_)
            filled = np.where(mask, 0, whole) if mask.any() else whole
            arrays.append(pa.array(filled, mask=mask).cast(field.type))
    return pa.table(arrays, schema=REQUEST_COLUMNS)
