"""Figures of a load from its rows: who was admitted, who was in time, how the admission fell on short and long requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from driving import Run
from examples import requirement_of

from setpoint.measure.result import LoadResult, validity
from setpoint.record import RequestClass
from setpoint.report.figures import classify
from setpoint.report.request_samples import Requests, read_requests
from setpoint.requirement import LatencyMetric, Slos
from setpoint.statistics import BoolArray, FloatArray

QUARTILES = 4


@dataclass(frozen=True, slots=True)
class Rows:
    """The requests of a load as columns, in order of the intended send. ``good``: admitted and within every limit.

    ``admitted``: the server took it on (not refused, not shed); one that did not end by the cut-off is admitted and not good.
    """

    requests: Requests
    phase: npt.NDArray[np.str_]
    planned_tokens: FloatArray
    attempts: FloatArray
    admitted: BoolArray
    good: BoolArray

    @property
    def at_s(self) -> FloatArray:
        """Intended send of each."""
        return self.requests.intended_s

    def where(self, rows: BoolArray) -> Rows:
        """Only these rows. Token times stay with nobody: take gaps before."""
        taken = {name: getattr(self.requests, name)[rows] for name in _BY_ROW}
        requests = Requests(**taken, token_times_s=np.empty(0), token_owner=np.empty(0, dtype=np.int64))
        return Rows(
            requests, self.phase[rows], self.planned_tokens[rows], self.attempts[rows], self.admitted[rows], self.good[rows]
        )


_BY_ROW = (
    "classes", "streaming", "intended_s", "first_s", "last_s", "end_s", "cutoff_s",
    "output_tokens", "prompt_tokens", "cached_tokens", "queue_wait_s", "not_due",
)  # fmt: skip


def rows_of(run: Run, slos: Slos | None = None) -> Rows:
    """The rows of a load, held to the limits of its example's sustained phase throughout, or to ``slos``."""
    slos = requirement_of(run.load.example).slo if slos is None else slos
    outcomes = sorted(run.result.outcomes, key=lambda row: (row.intended_s, row.index))
    requests = read_requests(run.result.requests("load"))
    served = requests.is_class(RequestClass.OK, RequestClass.LATE)
    lengths = {request.index: request.prompt_tokens + request.max_tokens for request in run.plan.requests}
    return Rows(
        requests,
        np.array([str(row.phase) for row in outcomes]),
        np.array([lengths[row.index] for row in outcomes], dtype=np.float64),
        np.array([row.attempts for row in outcomes], dtype=np.float64),
        ~requests.is_class(RequestClass.SHED, RequestClass.DROPPED),
        served & classify(requests, slos),
    )


def quantile(values: FloatArray, share: float) -> float | None:
    """The value that ``share`` of them are at most; ``inf`` stays ``inf``; ``None`` of nothing."""
    known = np.sort(values[~np.isnan(values)])
    return float(known[min(len(known) - 1, int(np.ceil(share * len(known))) - 1 if len(known) else 0)]) if len(known) else None


def latencies(rows: Rows) -> tuple[FloatArray, FloatArray]:
    """TTFT and E2E of the admitted; one that never came is ``inf``, NaN where the metric does not apply."""
    requests = rows.requests
    ended = requests.is_class(RequestClass.OK, RequestClass.LATE)
    ttft = np.where(requests.streaming & np.isnan(requests.ttft_s()), np.inf, requests.ttft_s())
    e2e = np.where(ended, requests.e2e_s(), np.inf)
    return ttft[rows.admitted], e2e[rows.admitted]


def load_figures(rows: Rows, seconds: float, slos: Slos) -> dict[str, Any]:
    """What the criteria ask of one load: lateness of the admitted, goodput, shares by length, spread."""
    ttft, e2e = latencies(rows)
    good_tokens = rows.planned_tokens[rows.good].sum()
    middle, tail = quantile(e2e, 0.5), quantile(e2e, 0.99)
    return {
        "seconds": seconds,
        "offered": len(rows.good),
        "admitted": int(rows.admitted.sum()),
        "good": int(rows.good.sum()),
        "late_of_admitted": _share(rows.admitted & ~rows.good, rows.admitted),
        "goodput_rps": float(rows.good.sum() / seconds),
        "goodput_tokens_per_s": float(good_tokens / seconds),
        "goodput_fraction": _share(rows.good, np.ones_like(rows.good)),
        "ttft_p50_s": quantile(ttft, 0.5),
        "ttft_p95_s": quantile(ttft, 0.95),
        "ttft_p99_s": quantile(ttft, 0.99),
        "e2e_p50_s": middle,
        "e2e_p95_s": quantile(e2e, 0.95),
        "e2e_p99_s": tail,
        "e2e_spread": tail / middle if tail is not None and middle else None,
        "limits_s": {str(m): slos.limit_s(m) for m in (LatencyMetric.TTFT, LatencyMetric.ITL, LatencyMetric.E2E)},
        "admission_share_by_length": quartile_shares(rows),
    }


def quartile_shares(rows: Rows) -> list[float] | None:
    """Share admitted in each quartile of request length (planned prompt and answer), over the share of all."""
    if not rows.admitted.any():
        return None
    edges = np.quantile(rows.planned_tokens, np.arange(1, QUARTILES) / QUARTILES)
    place = np.searchsorted(edges, rows.planned_tokens)
    mean = rows.admitted.mean()
    return [float(rows.admitted[place == each].mean() / mean) if (place == each).any() else 1.0 for each in range(QUARTILES)]


def windows(rows: Rows, start_s: float, end_s: float, width_s: float) -> tuple[FloatArray, list[BoolArray]]:
    """Starts of windows of ``width_s`` and which rows are intended in each."""
    starts = np.arange(start_s, end_s - width_s / 2, width_s)
    return starts, [(rows.at_s >= at) & (rows.at_s < at + width_s) for at in starts]


def client_account(run: Run) -> dict[str, Any]:
    """Whether the load generator itself may be believed."""
    result = run.result
    found = validity(result, requirement_of(run.load.example).slo)
    return {"valid": found.valid, "reasons": list(found.reasons), "send_lag_p99_s": result.client.send_lag_p99_s}


def step_errors(result: LoadResult, *, skip: int = 0) -> FloatArray:
    """Relative error of each step's predicted time, after the first ``skip`` steps."""
    steps = result.server.steps
    if steps is None:
        return np.empty(0)
    columns = steps.sort_by("step").to_pydict()
    predicted = np.array(columns["predicted_s"], dtype=np.float64)
    seconds = np.array(columns["end_s"]) - np.array(columns["start_s"])
    kept = (np.array(columns["step"]) >= skip) & np.isfinite(predicted) & (seconds > 0)
    return np.asarray(np.abs(predicted[kept] / seconds[kept] - 1), dtype=np.float64)


def _share(part: BoolArray, whole: BoolArray) -> float | None:
    return float(part.sum() / whole.sum()) if whole.any() else None
