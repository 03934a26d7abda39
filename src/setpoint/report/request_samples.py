"""Samples of a phase taken from the request table: what is known, what is censored, what is infinitely late.

Times are recomputed from the raw instants of the table (the columns ``ttft_s`` and so on are for readers), so every
figure of a report follows from one definition, DESIGN.md section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from setpoint.record import CONVERSATION_OVER, Phase, RequestClass
from setpoint.requirement import LatencyMetric, LatencySlo
from setpoint.statistics import BoolArray, FloatArray, IntArray

SERVED = (RequestClass.OK, RequestClass.LATE)
NEVER_SERVED = (RequestClass.FAILED, RequestClass.DROPPED)


@dataclass(frozen=True, slots=True)
class Sample:
    """Values in seconds, in the order in which they arose; ``censored`` marks those that are lower bounds."""

    values: FloatArray
    censored: BoolArray

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Requests:
    """A request table as columns of equal length, rows as in the table. NaN where an instant or a count is unknown.

    ``token_times_s`` holds the arrivals of all tokens end to end; ``token_owner`` the row each belongs to. ``end_s`` is
    when the answer was complete: the last token, or the end of the response where no token has a time (an answer that
    is not streamed). ``cutoff_s`` is until when an unfinished request was watched. ``not_due``: turns that were not sent
    because the turn before them did not end well.
    """

    classes: npt.NDArray[np.str_]
    streaming: BoolArray
    intended_s: FloatArray
    first_s: FloatArray
    last_s: FloatArray
    end_s: FloatArray
    cutoff_s: FloatArray
    output_tokens: FloatArray
    prompt_tokens: FloatArray
    cached_tokens: FloatArray
    queue_wait_s: FloatArray
    token_times_s: FloatArray
    token_owner: IntArray
    not_due: BoolArray

    def __len__(self) -> int:
        return len(self.classes)

    def is_class(self, *classes: RequestClass) -> BoolArray:
        """Rows of one of these classes."""
        return np.isin(self.classes, [str(each) for each in classes])

    def count(self, *classes: RequestClass) -> int:
        """How many rows are of one of these classes."""
        return int(np.count_nonzero(self.is_class(*classes)))

    def gaps(self) -> tuple[FloatArray, IntArray, FloatArray]:
        """All gaps between consecutive tokens of streams: seconds, the row each belongs to, when each ended."""
        same = (self.token_owner[1:] == self.token_owner[:-1]) & self.streaming[self.token_owner[1:]]
        gaps = np.diff(self.token_times_s)
        return gaps[same], self.token_owner[1:][same], self.token_times_s[1:][same]

    def deciding_gap_s(self, slo: LatencySlo) -> FloatArray:
        """Of each request's gaps the largest that may not be over the limit if at most 1 - p of them may; 0 without gaps."""
        gaps, owner, _ = self.gaps()
        order = np.lexsort((-gaps, owner))
        counts = np.bincount(owner, minlength=len(self))
        allowed = np.floor((1.0 - slo.percentile / 100.0) * counts + 1e-9).astype(np.int64)
        place = np.cumsum(counts) - counts + np.minimum(allowed, np.maximum(counts - 1, 0))
        found = np.zeros(len(self), dtype=np.float64)
        has = counts > 0
        found[has] = gaps[order][place[has]]
        return found

    def ttft_s(self) -> FloatArray:
        """Intended send to first token; an answer that came without any token counts its end. NaN if none came."""
        first = np.where(np.isnan(self.first_s) & self.is_class(*SERVED), self.end_s, self.first_s)
        return np.where(self.streaming, first - self.intended_s, np.nan)

    def tpot_s(self) -> FloatArray:
        """(last - first) / (output tokens - 1) of streaming requests with two tokens or more, else NaN."""
        known = self.streaming & (self.output_tokens >= 2)
        return np.where(known, (self.last_s - self.first_s) / np.where(known, self.output_tokens - 1, 1.0), np.nan)

    def e2e_s(self) -> FloatArray:
        """Intended send to last token (to the end of the response if it is not streamed); NaN if it never came."""
        return np.where(self.is_class(*SERVED), self.end_s - self.intended_s, np.nan)

    def waited_s(self) -> FloatArray:
        """How long a request had waited when it was last watched: a lower bound of what it did not reach."""
        return np.maximum(self.cutoff_s - self.intended_s, 0.0)


def phase_rows(table: pa.Table, phase: Phase) -> pa.Table:
    """The rows of ``phase`` in the order of their intended send. Raises ``ValueError`` for more than one candidate."""
    candidates = pc.unique(table["candidate"]).to_pylist()
    if len(candidates) > 1:
        raise ValueError(f"requests of one candidate expected, found {len(candidates)}: filter the column 'candidate'")
    return table.filter(pc.equal(table["phase"], str(phase))).sort_by("intended_s")


def read_requests(table: pa.Table) -> Requests:
    """The table (``record.columns.REQUEST_COLUMNS``) as columns, rows in the table's order."""
    first, last, ended = (_floats(table, name) for name in ("first_token_s", "last_token_s", "ended_s"))
    intended = _floats(table, "intended_s")
    lengths = pc.fill_null(pc.list_value_length(table["token_times_s"]), 0).to_numpy()
    times = _to_floats(pc.list_flatten(table["token_times_s"]))
    owner = np.repeat(np.arange(table.num_rows, dtype=np.int64), lengths)
    counted = np.bincount(owner, minlength=table.num_rows).astype(np.float64)
    output = _floats(table, "output_tokens")
    instants = np.concatenate((intended, first, last, ended, times))
    latest = float(np.nanmax(instants)) if np.isfinite(instants).any() else 0.0
    return Requests(
        classes=np.asarray(table["request_class"].to_pylist(), dtype=np.str_),
        streaming=np.asarray(pc.fill_null(table["streaming"], True).to_numpy(), dtype=np.bool_),
        intended_s=intended,
        first_s=first,
        last_s=last,
        end_s=np.where(np.isnan(last), ended, last),
        cutoff_s=np.where(np.isnan(ended), latest, ended),
        output_tokens=np.where(np.isnan(output), counted, output),
        prompt_tokens=_floats(table, "prompt_tokens"),
        cached_tokens=_floats(table, "cached_tokens"),
        queue_wait_s=_floats(table, "queue_wait_s"),
        token_times_s=times,
        token_owner=owner,
        not_due=np.asarray(pc.fill_null(pc.equal(table["error"], CONVERSATION_OVER), False).to_numpy(), dtype=np.bool_),
    )


def latency_sample(requests: Requests, metric: LatencyMetric, *, failures_infinite: bool = False) -> Sample:
    """The sample of ``metric`` in the order of the rows (ITL: in the order in which the gaps ended).

    Shed requests are in no sample. An unfinished request enters as censored at what it had waited for the token or end
    that had not come; what had come by then (a first token, earlier gaps) is known. ITL has all gaps of all requests,
    failed streams included. TPOT and queue wait are known or absent. ``failures_infinite``: failed and dropped requests
    enter TTFT and E2E as infinitely late instead of being left out.
    """
    if metric == LatencyMetric.ITL:
        return _gap_sample(requests)
    served = requests.is_class(*SERVED)
    unfinished = requests.is_class(RequestClass.UNFINISHED)
    nothing = np.zeros(len(requests), dtype=np.bool_)
    if metric == LatencyMetric.QUEUE_WAIT:
        return _sample(requests.queue_wait_s, nothing, served | unfinished)
    if metric == LatencyMetric.TPOT:
        return _sample(requests.tpot_s(), nothing, served)
    known = requests.ttft_s() if metric == LatencyMetric.TTFT else requests.e2e_s()
    censored = unfinished & np.isnan(known)
    values = np.where(censored, requests.waited_s(), known)
    wanted = served | unfinished
    if failures_infinite:
        lost = requests.is_class(*NEVER_SERVED)
        values, wanted = np.where(lost, np.inf, values), wanted | lost
    if metric == LatencyMetric.TTFT:
        wanted = wanted & requests.streaming
    return _sample(values, censored, wanted)


def stall_sample(requests: Requests) -> Sample:
    """The largest gap of each served or unfinished stream; of an unfinished one it is censored: it may yet grow."""
    gaps, owner, _ = requests.gaps()
    largest = np.full(len(requests), -np.inf)
    np.maximum.at(largest, owner, gaps)
    pending, waiting = _pending_gaps(requests)
    largest[waiting] = np.maximum(largest[waiting], pending)
    unfinished = requests.is_class(RequestClass.UNFINISHED)
    return _sample(largest, unfinished, (requests.is_class(*SERVED) | unfinished) & (largest >= 0.0))


def _gap_sample(requests: Requests) -> Sample:
    gaps, _, ended = requests.gaps()
    pending, waiting = _pending_gaps(requests)
    values = np.concatenate((gaps, pending))
    censored = np.concatenate((np.zeros(len(gaps), dtype=np.bool_), np.ones(len(pending), dtype=np.bool_)))
    order = np.argsort(np.concatenate((ended, requests.cutoff_s[waiting])), kind="stable")
    return Sample(values[order], censored[order])


def _pending_gaps(requests: Requests) -> tuple[FloatArray, IntArray]:
    """The gap an unfinished stream was in when it was last watched, and its row."""
    rows = np.flatnonzero(requests.is_class(RequestClass.UNFINISHED) & requests.streaming & ~np.isnan(requests.last_s))
    return np.maximum(requests.cutoff_s[rows] - requests.last_s[rows], 0.0), rows


def _sample(values: FloatArray, censored: BoolArray, wanted: BoolArray) -> Sample:
    kept = wanted & ~np.isnan(values)
    return Sample(values[kept], censored[kept])


def _floats(table: pa.Table, name: str) -> FloatArray:
    return _to_floats(table[name])


def _to_floats(column: pa.ChunkedArray) -> FloatArray:
    return np.asarray(pc.fill_null(pc.cast(column, pa.float64()), np.nan).to_numpy(), dtype=np.float64)
