"""What a load run hands over: rows, the server's account, the client's account. Rows, not verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from setpoint.measure.options import LoadOptions
from setpoint.measure.outcome import RequestOutcome
from setpoint.measure.recording import requests_table, steps_table
from setpoint.measure.self_check import ClientCheck, judge_client
from setpoint.measure.server_side import ServerSide
from setpoint.record import RequestClass, Validity
from setpoint.requirement import Slos

if TYPE_CHECKING:
    from setpoint.workload.plan import PhaseSpan


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """One run. Times are seconds from its start; phases as planned.

    outcomes: one for each planned request, in order of the plan, classes provisional (``ok`` is: served).
    started_unix_s: wall-clock time of the start. duration_s: start to the last answer or the cut-off.
    """

    outcomes: list[RequestOutcome]
    phases: list[PhaseSpan]
    options: LoadOptions
    server: ServerSide
    client: ClientCheck
    started_unix_s: float
    duration_s: float

    def counts(self) -> dict[RequestClass, int]:
        """How many requests ended in each provisional class; they sum to the planned requests."""
        counts = dict.fromkeys(RequestClass, 0)
        for row in self.outcomes:
            counts[row.request_class] += 1
        return counts

    def requests(self, candidate: str) -> pa.Table:
        """``requests.parquet``: columns as ``record.REQUEST_COLUMNS``."""
        return requests_table(self.outcomes, candidate)

    def steps(self, candidate: str) -> pa.Table | None:
        """``steps.parquet``: columns as ``record.STEP_COLUMNS``; ``None`` where the engine is not ours."""
        return steps_table(self.server.steps, candidate)


def validity(result: LoadResult, slos: Slos) -> Validity:
    """Whether the run may be believed, judged by the client's own error against what ``slos`` limit."""
    limited = result.options.max_in_flight is not None
    return judge_client(result.client, result.outcomes, slos, limited=limited)
