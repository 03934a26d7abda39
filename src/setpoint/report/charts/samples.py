"""Columns of one candidate out of the run's tables, as NumPy arrays ready to draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from setpoint.record import Phase, RequestClass

Floats = NDArray[np.float64]
Strings = NDArray[np.object_]
WITH_A_LATENCY = tuple(str(each) for each in (RequestClass.OK, RequestClass.LATE, RequestClass.UNFINISHED))
"""Classes whose known latencies are in the samples; what came of a stream that failed is not."""
PHASE_ORDER = (Phase.WARMUP, Phase.SUSTAINED, Phase.BURST, Phase.RECOVERY)


@dataclass(frozen=True, slots=True)
class Span:
    """One phase on the time axis, in seconds since the start of the candidate's run."""

    phase: Phase
    start_s: float
    end_s: float


def _floats(table: pa.Table, name: str) -> Floats:
    """A numeric column, NaN where null or where the table has no such column."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    column = table.column(name).cast(pa.float64())
    return np.array(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _strings(table: pa.Table, name: str) -> Strings:
    """A text column, empty where null or where the table has no such column."""
    values = table.column(name).to_pylist() if name in table.column_names else [""] * table.num_rows
    return np.array([value or "" for value in values], dtype=object)


def of_candidate(table: pa.Table, candidate: str) -> pa.Table:
    """The rows of one candidate."""
    if "candidate" not in table.column_names or table.num_rows == 0:
        return table.slice(0, 0)
    return table.filter(pc.equal(table.column("candidate").cast(pa.string()), candidate))


def _gaps(table: pa.Table) -> tuple[Floats, NDArray[np.int64], Floats]:
    """All gaps between consecutive tokens, in seconds, the row each belongs to, and when each ended."""
    empty = np.empty(0), np.empty(0, dtype=np.int64), np.empty(0)
    if table.num_rows == 0 or "token_times_s" not in table.column_names:
        return empty
    column = table.column("token_times_s")
    lengths = np.array(pc.fill_null(pc.list_value_length(column), 0).to_numpy(), dtype=np.int64)
    times = np.array(pc.list_flatten(column).to_numpy(), dtype=np.float64)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    if len(times) < 2:
        return empty
    same = rows[1:] == rows[:-1]
    return np.diff(times)[same], rows[1:][same], times[1:][same]


@dataclass(frozen=True, slots=True)
class RequestSamples:
    """One candidate's requests. Arrays of one length, a value a request, NaN where unknown; times in seconds.

    ``gaps_s`` holds a value a gap, ``gap_rows`` the index of the request it belongs to, ``gap_ends_s`` when it ended.
    """

    phase: Strings
    request_class: Strings
    intended_s: Floats
    sent_s: Floats
    ended_s: Floats
    ttft_s: Floats
    e2e_s: Floats
    gaps_s: Floats
    gap_rows: NDArray[np.int64]
    gap_ends_s: Floats

    @classmethod
    def read(cls, requests: pa.Table, candidate: str) -> RequestSamples:
        """The rows of ``candidate`` in a table of ``record.columns.REQUEST_COLUMNS``."""
        table = of_candidate(requests, candidate)
        gaps_s, gap_rows, gap_ends_s = _gaps(table)
        return cls(
            phase=_strings(table, "phase"),
            request_class=_strings(table, "request_class"),
            intended_s=_floats(table, "intended_s"),
            sent_s=_floats(table, "sent_s"),
            ended_s=_floats(table, "ended_s"),
            ttft_s=_floats(table, "ttft_s"),
            e2e_s=_floats(table, "e2e_s"),
            gaps_s=gaps_s,
            gap_rows=gap_rows,
            gap_ends_s=gap_ends_s,
        )

    def __len__(self) -> int:
        return len(self.phase)

    def values_s(self, metric: str, phase: Phase) -> Floats:
        """Known values in ``phase``, sorted: ``ttft``, ``e2e``, ``itl`` (all gaps), ``max_gap`` (each request's largest)."""
        in_phase = self.phase == str(phase)
        if metric in ("ttft", "e2e"):
            in_phase = in_phase & np.isin(self.request_class, WITH_A_LATENCY)
        if metric == "itl":
            values = self.gaps_s[in_phase[self.gap_rows]] if len(self.gap_rows) else self.gaps_s
        elif metric == "max_gap":
            values = self.largest_gaps_s()[in_phase]
        else:
            values = (self.ttft_s if metric == "ttft" else self.e2e_s)[in_phase]
        return np.sort(values[np.isfinite(values)])

    def largest_gaps_s(self) -> Floats:
        """The largest gap of each request, NaN where it has none."""
        largest = np.full(len(self), -np.inf)
        np.maximum.at(largest, self.gap_rows, self.gaps_s)
        return np.where(largest >= 0.0, largest, np.nan)

    def end_s(self) -> float:
        """The last moment of the run that any request knows of; 0 without requests."""
        moments = np.concatenate([self.intended_s, self.ended_s])
        moments = moments[np.isfinite(moments)]
        return float(moments.max()) if len(moments) else 0.0

    def spans(self) -> list[Span]:
        """The phases in order: each starts with its first intended request and ends where the next starts."""
        starts: list[tuple[Phase, float]] = []
        for phase in PHASE_ORDER:
            intended_s = self.intended_s[(self.phase == str(phase)) & np.isfinite(self.intended_s)]
            if len(intended_s):
                starts.append((phase, float(intended_s.min())))
        if not starts:
            return []
        starts.sort(key=lambda item: item[1])
        ends_s = [start_s for _, start_s in starts[1:]] + [self.end_s()]
        return [
            Span(phase, 0.0 if index == 0 else start_s, end_s)
            for index, ((phase, start_s), end_s) in enumerate(zip(starts, ends_s, strict=True))
        ]


@dataclass(frozen=True, slots=True)
class StepSamples:
    """One candidate's engine steps, a value a step; NaN where unknown. ``kv_fraction`` is used blocks / blocks.

    drafts, drafted: requests with a draft, and draft tokens of all of them.
    """

    start_s: Floats
    end_s: Floats
    sequences: Floats
    prefill_tokens: Floats
    running: Floats
    waiting: Floats
    kv_fraction: Floats
    prefill_budget_tokens: Floats
    drafts: Floats
    drafted: Floats

    @classmethod
    def read(cls, steps: pa.Table | None, candidate: str) -> StepSamples | None:
        """The rows of ``candidate`` in a table of ``record.columns.STEP_COLUMNS``; ``None`` if there are none."""
        table = of_candidate(steps, candidate) if steps is not None else None
        if table is None or table.num_rows == 0:
            return None
        blocks = _floats(table, "kv_blocks")
        blocks[blocks <= 0] = np.nan
        return cls(
            start_s=_floats(table, "start_s"),
            end_s=_floats(table, "end_s"),
            sequences=_floats(table, "sequences"),
            prefill_tokens=_floats(table, "prefill_tokens"),
            running=_floats(table, "running"),
            waiting=_floats(table, "waiting"),
            kv_fraction=_floats(table, "kv_used_blocks") / blocks,
            prefill_budget_tokens=_floats(table, "prefill_budget_tokens"),
            drafts=_floats(table, "drafts"),
            drafted=_floats(table, "drafted"),
        )

    def mean_running(self, span: Span | None) -> float | None:
        """Mean running sequences weighted by step time, within ``span`` if given; ``None`` without such steps."""
        inside = np.isfinite(self.start_s) & np.isfinite(self.end_s) & np.isfinite(self.running)
        if span is not None:
            inside &= (self.start_s >= span.start_s) & (self.start_s < span.end_s)
        weights_s = (self.end_s - self.start_s)[inside]
        if weights_s.sum() <= 0:
            return None
        return float((self.running[inside] * weights_s).sum() / weights_s.sum())


@dataclass(frozen=True, slots=True)
class ServerSamples:
    """What the server's metrics said, by name: times in seconds and values, both of one length."""

    series: dict[str, tuple[Floats, Floats]]

    @classmethod
    def read(cls, server: pa.Table | None, candidate: str) -> ServerSamples:
        """The rows of ``candidate`` in a table of ``record.columns.SERVER_COLUMNS``; empty without one."""
        table = of_candidate(server, candidate) if server is not None else None
        if table is None or table.num_rows == 0:
            return cls({})
        names, times_s, values = _strings(table, "name"), _floats(table, "time_s"), _floats(table, "value")
        return cls({str(name): (times_s[names == name], values[names == name]) for name in np.unique(names)})

    def known(self, name: str) -> tuple[Floats, Floats] | None:
        """One series with its unknown values left out; ``None`` if nothing is left."""
        times_s, values = self.series.get(name, (np.empty(0), np.empty(0)))
        kept = np.isfinite(times_s) & np.isfinite(values)
        return (times_s[kept], values[kept]) if kept.any() else None
