"""Whether the sustained phase was steady: how long its initial transient was, and whether a backlog grew.

A backlog grows when more requests arrive than leave. It is told from the number of requests in the system, from their
intended send to their end, in eight stretches of the phase: if it rises throughout (``statistics.rising_trend``, at a
probability of ``DRIFT_LEVEL``) by at least ``DRIFT_SHARE`` of the requests that arrived, the load was above capacity. Where
arrivals themselves became more frequent, as in a ramp, the number in the system is taken in proportion to them. What fills
the system at first is left out: the test begins when the first requests have had time to end.

False alarms, by simulation of M/M/1 queues: below 0.5 % up to 80 % utilisation from 600 requests on, 2 % at 90 % utilisation,
5 % for 200 requests at 90 %. Found: 90 % of runs of 600 requests at 120 % of capacity, all at 150 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from setpoint.record import Phase, RequestClass
from setpoint.report.request_samples import SERVED, Requests, read_requests
from setpoint.report.span import PhaseSpan
from setpoint.statistics import BoolArray, FloatArray, batch_means, rising_trend, transient_length
from setpoint.statistics.trend import TREND_BATCHES

DRIFT_LEVEL = 0.001
DRIFT_SHARE = 0.03
LEAST_ARRIVALS = 40
GRID = 30 * TREND_BATCHES
FIRST_REQUESTS = 20
TIMES_FIRST_E2E = 2.0
TELL_TRANSIENT_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class SteadyState:
    """What the requests of a phase say of its steadiness.

    transient_s: from the phase's start until its latencies no longer tell that it had just begun. drifting: the number of
    requests in the system grew throughout, by ``drift_rps`` requests a second; p_value is the probability of a rise as clear
    if the load were below capacity, ``None`` where the phase is too short to tell. words: one sentence for the report, empty
    if there is nothing to remark.
    """

    transient_s: float
    drifting: bool
    drift_rps: float | None
    p_value: float | None
    words: str


UNKNOWN = SteadyState(0.0, False, None, None, "")


def steady_state(table: pa.Table, span: PhaseSpan | None = None, *, candidate: str | None = None) -> SteadyState:
    """Judge the steadiness of the sustained phase from the request table of all phases (``record.columns.REQUEST_COLUMNS``).

    span: when the phase began and ended; without one, from its first to its last intended send. candidate: whose rows, if
    the table has several. Nothing is said of a phase with fewer than ``LEAST_ARRIVALS`` requests.
    """
    if candidate is not None:
        table = table.filter(pc.equal(table["candidate"], candidate))
    table = table.sort_by("intended_s")
    within = np.asarray(pc.equal(table["phase"], str(Phase.SUSTAINED)).to_numpy(), dtype=np.bool_)
    if int(within.sum()) < LEAST_ARRIVALS:
        return UNKNOWN
    rows = read_requests(table)
    intended_s = rows.intended_s[within]
    if span is None:
        span = PhaseSpan(float(intended_s[0]), float(intended_s[-1]) + 1e-9)
    drifting, drift_rps, p_value = drift(rows, span)
    transient_s = 0.0 if drifting else _transient_s(rows, within, span)
    return SteadyState(transient_s, drifting, drift_rps, p_value, _words(transient_s, drifting, drift_rps, span))


def drift(rows: Requests, span: PhaseSpan) -> tuple[bool, float | None, float | None]:
    """Whether the number in the system grew, by how many requests a second, and the p-value; nothing is said of no requests."""
    if not len(rows):
        return False, None, None
    left_s = _left_s(rows)
    waits_s = (left_s - rows.intended_s)[:FIRST_REQUESTS]
    start_s = max(span.start_s, float(rows.intended_s[0]) + TIMES_FIRST_E2E * float(np.median(waits_s)))
    arrivals_s = rows.intended_s[(rows.intended_s >= start_s) & (rows.intended_s < span.end_s)]
    if not span.end_s - start_s >= 0.5 * span.duration_s or len(arrivals_s) < LEAST_ARRIVALS:
        return False, None, None
    edges_s = np.linspace(start_s, span.end_s, GRID + 1)
    middle_s = (edges_s[1:] + edges_s[:-1]) / 2.0
    entered = np.searchsorted(rows.intended_s, middle_s, side="right")
    inside = (entered - np.searchsorted(np.sort(left_s), middle_s, side="right")).astype(np.float64)
    means, rates = batch_means(inside), batch_means(np.histogram(arrivals_s, edges_s)[0].astype(np.float64))
    if means is None or rates is None:
        return False, None, None
    plain = rising_trend(means)
    found = plain
    if rising_trend(rates).p_value < 0.01:
        found = rising_trend(means * rates.mean() / np.maximum(rates, rates.mean() / TREND_BATCHES))
    drifting = found.p_value <= DRIFT_LEVEL and found.rise >= max(1.0, DRIFT_SHARE * len(arrivals_s))
    return drifting, plain.rise / (span.end_s - start_s), found.p_value


def _left_s(rows: Requests) -> FloatArray:
    """When each request left the system; never, if it was not seen to. Who was shed did not enter, nor the turns after it."""
    ended_s = np.where(np.isnan(rows.end_s), rows.cutoff_s, rows.end_s)
    ended_s = np.where(rows.is_class(RequestClass.UNFINISHED, RequestClass.DROPPED), np.inf, ended_s)
    return np.where(rows.is_class(RequestClass.SHED) | rows.not_due, rows.intended_s, ended_s)


def _transient_s(rows: Requests, within: BoolArray, span: PhaseSpan) -> float:
    served = within & rows.is_class(*SERVED)
    cut = transient_length(rows.e2e_s()[served])
    return max(0.0, float(rows.intended_s[served][cut]) - span.start_s) if cut else 0.0


def _words(transient_s: float, drifting: bool, drift_rps: float | None, span: PhaseSpan) -> str:
    if drifting and drift_rps is not None:
        return (
            f"not steady: the backlog grew by {drift_rps:.2g} requests/s, so the load is above capacity;"
            " its percentiles describe these moments and would be worse in a longer run"
        )
    if transient_s >= TELL_TRANSIENT_SHARE * span.duration_s:
        return (
            f"not steady at first: the latencies of the first {transient_s:.3g} s differ from the others;"
            " a longer warm-up (--warmup) leaves them out"
        )
    return ""
