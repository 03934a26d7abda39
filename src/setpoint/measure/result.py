"""What a load run hands over: rows, the server's account, the client's account. Rows, not verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from setpoint.measure.options import LoadOptions
from setpoint.measure.outcome import RequestOutcome
from setpoint.measure.self_check import ClientCheck, judge_client
from setpoint.measure.server_side import ServerSide
from setpoint.record import RequestClass, Validity
from setpoint.requirement import Slos

if TYPE_CHECKING:
    import pyarrow as pa

    from setpoint.workload.plan import LoadPlan, PhaseSpan


class Ended(StrEnum):
    """What ended the sending of a run: its plan, enough that is known, too few requests for a closed loop, or the user."""

    PLAN = "plan"
    ENOUGH = "enough"
    USED_UP = "used up"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """One run. Times are seconds from its start; phases as planned, or as ``spans_of_run`` makes them.

    outcomes: one for each request that was intended, in order of that, classes provisional (``ok`` is: served).
    started_unix_s: wall-clock time of the start. duration_s: start to the last answer or the cut-off.
    ended: where it was not the plan, the last phase ends at that instant, if it had begun and not ended by then.
    """

    # Not in the repr: asyncio makes the repr of a finished run's result, which would cost microseconds for each token.
    outcomes: list[RequestOutcome] = field(repr=False)
    phases: list[PhaseSpan]
    options: LoadOptions
    server: ServerSide = field(repr=False)
    client: ClientCheck
    started_unix_s: float
    duration_s: float
    ended: Ended = Ended.PLAN

    def counts(self) -> dict[RequestClass, int]:
        """How many requests ended in each provisional class; they sum to the planned requests."""
        counts = dict.fromkeys(RequestClass, 0)
        for row in self.outcomes:
            counts[row.request_class] += 1
        return counts

    @property
    def amplification(self) -> float | None:
        """Requests that reached a connection, retries included, for each offered one; ``None`` for an empty run."""
        return sum(row.attempts for row in self.outcomes) / len(self.outcomes) if self.outcomes else None

    def requests(self, candidate: str) -> pa.Table:
        """``requests.parquet``: columns as ``record.columns.REQUEST_COLUMNS``."""
        from setpoint.measure.recording import requests_table  # Arrow is not needed to begin

        return requests_table(self.outcomes, candidate)

    def steps(self, candidate: str) -> pa.Table | None:
        """``steps.parquet``: columns as ``record.columns.STEP_COLUMNS``; ``None`` where the engine is not ours."""
        from setpoint.measure.recording import named_table  # Arrow is not needed to begin

        return named_table(self.server.steps, candidate)

    def decisions(self, candidate: str) -> pa.Table | None:
        """``decisions.parquet``: columns as ``record.columns.DECISION_COLUMNS``; ``None`` where the engine is not ours."""
        from setpoint.measure.recording import named_table  # Arrow is not needed to begin

        return named_table(self.server.decisions, candidate)


def spans_of_run(plan: LoadPlan, rows: Sequence[RequestOutcome], duration_s: float) -> list[PhaseSpan]:
    """The phases of a run: those of the plan, or, where requests end a phase, from its first request to the next's.

    rows: in order of their intended send. The last phase ends with the run, after ``duration_s``.
    """
    if not rows or plan.by_time:
        return list(plan.phases)
    begins: dict[str, float] = {}
    for row in rows:
        begins.setdefault(row.phase, row.intended_s)
    spans = sorted((span for span in plan.phases if span.phase in begins), key=lambda span: begins[span.phase])
    ends = [*(begins[span.phase] for span in spans[1:]), duration_s]
    return [replace(span, start_s=begins[span.phase], end_s=end_s) for span, end_s in zip(spans, ends, strict=True)]


def validity(result: LoadResult, slos: Slos) -> Validity:
    """Whether the run may be believed, judged by the client's own error against what ``slos`` limit; not if it was stopped."""
    limited = result.options.max_in_flight is not None
    found = judge_client(result.client, result.outcomes, slos, limited=limited, phases=result.phases)
    if result.ended is not Ended.INTERRUPTED:
        return found
    stopped = f"The run was stopped after {result.duration_s:.0f} s, before it was over; this is what was measured by then."
    return Validity(valid=False, reasons=[stopped, *found.reasons])
