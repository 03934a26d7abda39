"""One load against the mock in its own process, and the truth from the mock's log.

The truth is computed here from raw times, with nothing of the report's code. What the report may differ by is 2 ms or
3 %. On a machine that is busy with something else a token is stamped late though nobody did anything wrong; how late at
most, an independent witness saw (``truth_witness``). Each true value may be longer or shorter by the hold-ups seen
between the sends and the stamps that it is made of, and no other; on a quiet machine there are none.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from truth_witness import Witness

from setpoint.measure.client import run_load
from setpoint.measure.event_loop import run
from setpoint.measure.mock import MockLog, MockOptions, MockProcess, MockRequest
from setpoint.measure.options import LoadOptions
from setpoint.measure.outcome import RequestOutcome
from setpoint.measure.result import LoadResult
from setpoint.measure.target import Target
from setpoint.record import Phase, PhaseMeasures
from setpoint.report.figures import PhaseSpan as ReportSpan
from setpoint.report.figures import phase_measures
from setpoint.requirement import ArrivalProcess, Slos
from setpoint.workload.arrivals import arrival_offsets_s
from setpoint.workload.plan import LoadPlan, PhaseSpan, PlannedRequest

LEAD_S = 0.5
WITHIN_S, WITHIN_SHARE = 0.002, 0.03

Floats = NDArray[np.float64]


def planned_load(rate_rps: float, duration_s: float, tokens: int | Sequence[int], *, seed: int = 1) -> LoadPlan:
    """Poisson arrivals in one sustained phase; a sequence of ``tokens`` is dealt to the requests in turn."""
    rng = np.random.default_rng(seed)
    offsets_s = arrival_offsets_s(ArrivalProcess.POISSON, rate_rps, duration_s, rng)
    limits = [tokens] if isinstance(tokens, int) else list(tokens)
    requests = [
        PlannedRequest(index, float(offset_s), Phase.SUSTAINED, "a b c", 3, limits[index % len(limits)])
        for index, offset_s in enumerate(offsets_s)
    ]
    return LoadPlan(seed, [PhaseSpan(Phase.SUSTAINED, 0.0, duration_s)], requests, prompt_tokens_exact=False)


@dataclass(frozen=True)
class Known:
    """True values, and by how much each may have been seen as longer or shorter because something was held up."""

    true_s: Floats
    held_s: Floats

    def __len__(self) -> int:
        return len(self.true_s)

    def assert_near(self, found_s: float | None, percent: float, what: str) -> None:
        """The percentile ``found_s`` is that of the true values to 2 ms or 3 %, hold-ups allowed for."""
        assert found_s is not None, what
        true_s = percentile_of(self.true_s, percent)
        low_s, high_s = (percentile_of(self.true_s + sign * self.held_s, percent) for sign in (-1.0, 1.0))
        allowed_s = max(WITHIN_S, WITHIN_SHARE * true_s)
        message = (
            f"{what} P{percent:g}: reported {found_s * 1e3:.2f} ms, true {true_s * 1e3:.2f} ms "
            f"({low_s * 1e3:.2f} to {high_s * 1e3:.2f} ms with the hold-ups witnessed), allowed {allowed_s * 1e3:.2f} ms"
        )
        assert low_s - allowed_s <= found_s <= high_s + allowed_s, message


def all_of(parts: Iterable[Known]) -> Known:
    """The values of all parts together."""
    listed = list(parts)
    return Known(
        np.concatenate([part.true_s for part in listed] or [np.empty(0)]),
        np.concatenate([part.held_s for part in listed] or [np.empty(0)]),
    )


@dataclass(frozen=True)
class Measured:
    """A run and what the mock did meanwhile. ``start_s`` is the plan's zero on the clock that both share."""

    plan: LoadPlan
    result: LoadResult
    log: MockLog
    start_s: float
    witness: Witness

    def measures(self, keep: Iterable[str] | None = None, slos: Slos | None = None) -> PhaseMeasures:
        """The report's own figures, of all requests or of those with the ids ``keep``."""
        table = self.result.requests("mock")
        if keep is not None:
            table = table.filter(pc.is_in(table["request_id"], value_set=pa.array(list(keep), pa.string())))
        return phase_measures(table, Phase.SUSTAINED, ReportSpan(0.0, self.plan.duration_s), slos)

    def true_requests(self, belongs: Callable[[MockRequest], bool] = lambda request: True) -> list[TrueRequest]:
        """What the server did for each request that it received, in the order of the plan."""
        known = self.log.by_id()
        rows = [(row, known.get(row.request_id)) for row in self.result.outcomes]
        return [TrueRequest(self, row, request) for row, request in rows if request is not None and belongs(request)]


@dataclass(frozen=True)
class TrueRequest:
    """One request as it really was."""

    run: Measured
    row: RequestOutcome
    sent: MockRequest

    @property
    def intended_s(self) -> float:
        """On the clock."""
        return self.run.start_s + self.row.intended_s

    @property
    def ttft(self) -> Known:
        """Intended send to first token sent."""
        return Known(self.sent.token_times_s[:1] - self.intended_s, self.held_s[:1])

    @property
    def e2e(self) -> Known:
        """Intended send to last token sent."""
        return Known(self.sent.token_times_s[-1:] - self.intended_s, self.held_s[-1:])

    @property
    def gaps(self) -> Known:
        """Between consecutive tokens."""
        return Known(np.diff(self.sent.token_times_s), self.held_s[1:] + self.held_s[:-1])

    @property
    def largest_gap(self) -> Known:
        """The largest of them."""
        gaps = self.gaps
        true_s = gaps.true_s.max()
        held_s = max((gaps.true_s + gaps.held_s).max() - true_s, true_s - (gaps.true_s - gaps.held_s).max())
        return Known(np.array([true_s]), np.array([held_s]))

    @property
    def refusal(self) -> Known:
        """Intended send to the refusal sent."""
        sent_s = np.array(self.sent.sends_s[:1])
        seen_s = np.array([self.row.ended_s or 0.0]) + self.run.start_s
        held_s = self.run.witness.held_up_s(np.minimum(sent_s, seen_s), np.maximum(sent_s, seen_s))
        return Known(sent_s - self.intended_s, held_s)

    @property
    def held_s(self) -> Floats:
        """What was held up between the send of each token and its stamp; 0 for tokens that the client never saw."""
        sent_s = self.sent.token_times_s
        seen_s = sent_s.copy()
        stamps_s = self.row.token_times_s[: len(sent_s)] + self.run.start_s
        seen_s[: len(stamps_s)] = stamps_s
        return self.run.witness.held_up_s(np.minimum(sent_s, seen_s), np.maximum(sent_s, seen_s))


def percentile_of(values: Iterable[float] | Floats, percent: float) -> float:
    """By nearest rank."""
    ranked = sorted(values)
    return ranked[max(1, math.ceil(len(ranked) * percent / 100 - 1e-9)) - 1]


def measure(plan: LoadPlan, mock: MockOptions, **options: Any) -> Measured:
    """Put the plan on a fresh mock in a process of its own."""
    settings = LoadOptions(**({"watch_server": False} | options))
    with MockProcess(mock) as server, tempfile.TemporaryDirectory() as folder:
        with Witness([os.getpid(), server.pid], Path(folder)) as witness:
            start_s = monotonic() + LEAD_S
            result = run(run_load(Target(server.url, "mock-model"), plan, settings, start_s=start_s))
        return Measured(plan, result, server.log(), start_s, witness)
