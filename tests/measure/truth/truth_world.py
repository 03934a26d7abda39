"""One load against the mock in its own process, and the truth from the mock's log.

The truth is computed here from raw times, with nothing of the report's code. What the report may differ by is 2 ms or
3 % (``allowed_s``). On a machine that is busy with something else the client cannot stamp in time, and says so: what it
declares of itself beyond ``USUAL_LAG_S``, the resolution of its own watch, is allowed on top.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

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
USUAL_LAG_S = 0.0015

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
class Measured:
    """A run and what the mock did meanwhile. ``start_s`` is the plan's zero on the clock that both share."""

    plan: LoadPlan
    result: LoadResult
    log: MockLog
    start_s: float

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

    @property
    def declared_lag_s(self) -> float:
        """What the client says of its own lag, beyond the usual."""
        return max(0.0, (self.result.client.loop_lag_p99_s or 0.0) - USUAL_LAG_S)

    def assert_near(self, found_s: float | None, true_s: float, what: str) -> None:
        """2 ms or 3 % of the truth, and what the client declares of its own lag."""
        assert found_s is not None, what
        allowed_s = max(WITHIN_S, WITHIN_SHARE * true_s) + self.declared_lag_s
        message = f"{what}: reported {found_s * 1e3:.2f} ms, true {true_s * 1e3:.2f} ms, allowed {allowed_s * 1e3:.2f} ms"
        assert abs(found_s - true_s) <= allowed_s, message


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
    def ttft_s(self) -> float:
        """Intended send to first token sent."""
        return float(self.sent.token_times_s[0]) - self.intended_s

    @property
    def e2e_s(self) -> float:
        """Intended send to last token sent."""
        return float(self.sent.token_times_s[-1]) - self.intended_s

    @property
    def gaps_s(self) -> Floats:
        """Between consecutive tokens."""
        return np.diff(self.sent.token_times_s)


def percentile_of(values: Iterable[float] | Floats, percent: float) -> float:
    """By nearest rank."""
    ranked = sorted(values)
    return ranked[max(1, math.ceil(len(ranked) * percent / 100 - 1e-9)) - 1]


def measure(plan: LoadPlan, mock: MockOptions, **options: Any) -> Measured:
    """Put the plan on a fresh mock in a process of its own."""
    settings = LoadOptions(**({"watch_server": False} | options))
    with MockProcess(mock) as server:
        start_s = monotonic() + LEAD_S
        result = run(run_load(Target(server.url, "mock-model"), plan, settings, start_s=start_s))
        return Measured(plan, result, server.log(), start_s)
