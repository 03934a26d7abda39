"""Figures of a phase beside those of DESIGN.md section 6: from the send, of connecting, of refusals, of stalls, of retries."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from setpoint.record import Phase, PhaseMeasures, RequestClass, Summary
from setpoint.report.request_samples import SERVED, phase_rows, read_requests, stall_sample
from setpoint.statistics import FloatArray, summarise

STALL_LIMIT_S = 0.5
"""A gap in a stream that a reader takes for a stall, where no limit says otherwise."""


def with_extras(
    measures: PhaseMeasures, table: pa.Table, phase: Phase, *, stall_limit_s: float = STALL_LIMIT_S
) -> PhaseMeasures:
    """``measures`` with the figures that the request table (``record.columns.REQUEST_COLUMNS``, all phases) has besides.

    From the send: the answers of served requests, counted from the bytes on the socket instead of the intended send; the
    difference is the client's own wait. Connecting: of the requests for which a connection was opened. A refusal counts
    from the intended send to the end of the answer. A stream stalled if its largest gap is over ``stall_limit_s``; one
    that was cut off counts with the gap it was in. Amplification: requests sent over requests offered.
    """
    rows = phase_rows(table, phase)
    requests = read_requests(rows)
    sent_s, connected_s = (_column(rows, name) for name in ("sent_s", "connected_s"))
    dispatched_s, connect_started_s = np.fmin(_column(rows, "dispatched_s"), sent_s), _column(rows, "connect_started_s")
    served = requests.is_class(*SERVED)
    shift_s = requests.intended_s - sent_s
    stalls = stall_sample(requests).values
    attempts = _column(rows, "attempts")
    refused = requests.is_class(RequestClass.SHED)
    return measures.model_copy(
        update={
            "ttft_from_send_s": _summary((requests.ttft_s() + shift_s)[served]),
            "e2e_from_send_s": _summary((requests.e2e_s() + shift_s)[served]),
            "connect_s": _summary(connected_s - np.where(np.isnan(connect_started_s), dispatched_s, connect_started_s)),
            "refusal_s": _summary((requests.end_s - requests.intended_s)[refused]),
            "stalled_fraction": float((stalls > stall_limit_s).mean()) if len(stalls) else None,
            "stall_limit_s": stall_limit_s if len(stalls) else None,
            "amplification": _amplification(attempts),
        }
    )


def _column(rows: pa.Table, name: str) -> FloatArray:
    return np.asarray(pc.fill_null(pc.cast(rows[name], pa.float64()), np.nan).to_numpy(), dtype=np.float64)


def _summary(values: FloatArray) -> Summary | None:
    known = values[np.isfinite(values)]
    return Summary.model_validate(asdict(summarise(np.maximum(known, 0.0)))) if len(known) else None


def _amplification(attempts: FloatArray) -> float | None:
    """Attempts over offered; ``None`` where every request was sent at most once."""
    known = attempts[~np.isnan(attempts)]
    return float(known.sum()) / len(attempts) if len(known) and known.max() > 1 else None
