"""A measurement when it is over: its rows, its figures, its verdict; and what the rows are held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from setpoint.measure.result import Ended
from setpoint.record import Candidate, Measured, Predicted, SloReport, Validity
from setpoint.requirement import Requirement

if TYPE_CHECKING:
    import pyarrow as pa

    from setpoint.measure.capacity import Capacity
    from setpoint.report.assertion import Assertion


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One candidate's rows (``record.columns.REQUEST_COLUMNS``, ``STEP_COLUMNS``), figures, SLO report and validity.

    client, server: as ``record.Candidate`` has them. server_table: as ``record.columns.SERVER_COLUMNS``, ``None`` without
    metrics. decisions: as ``record.columns.DECISION_COLUMNS``, ``None`` where the engine is not ours. ended: what ended it.
    """

    requests: pa.Table
    steps: pa.Table | None
    measured: Measured
    slo: SloReport
    validity: Validity
    client: dict[str, Any] | None = None
    server: dict[str, Any] | None = None
    server_table: pa.Table | None = None
    decisions: pa.Table | None = None
    ended: Ended = Ended.PLAN

    def candidate(self, name: str, config: dict[str, object], predicted: Predicted | None = None) -> Candidate:
        """As an entry of the report."""
        return Candidate(
            name=name,
            config=config,
            predicted=predicted,
            measured=self.measured,
            slo=self.slo,
            client=self.client,
            server=self.server,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the rows are held to besides the requirement.

    assertions: claims of the user. declared: the requirement without the limits that come from claims; its own limits
    are checks of their own (``None``: the requirement as it is). capacity: what a client process is good to here.
    """

    assertions: Sequence[Assertion] = field(default_factory=tuple)
    declared: Requirement | None = None
    capacity: Capacity | None = None
