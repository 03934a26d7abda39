"""The record of a run: one report schema for tune, measure and simulate (Parquet columns: ``record.columns``).

A run is a folder: ``run.json``, ``requests.parquet``, ``steps.parquet`` (where the engine is ours), ``report.json`` and
``report.html``. Everything here is data, and the name of the processor it is of; nothing here measures or decides.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import to_json

SCHEMA_VERSION = 1
CONVERSATION_OVER = "not sent: the turn before it did not end well"
"""The error of a dropped request that was not due: a turn of a conversation that had ended before it."""


class Verdict(StrEnum):
    """The outcome of one check or of one run."""

    MET = "met"
    MISSED = "missed"
    INCONCLUSIVE = "inconclusive"


class RequestClass(StrEnum):
    """How an intended request ended; every one ends in exactly one class (DESIGN.md section 3)."""

    OK = "ok"
    LATE = "late"
    SHED = "shed"
    FAILED = "failed"
    DROPPED = "dropped"
    UNFINISHED = "unfinished"


class Phase(StrEnum):
    """The phases of a measurement; their figures are never pooled."""

    WARMUP = "warmup"
    SUSTAINED = "sustained"
    BURST = "burst"
    RECOVERY = "recovery"


EXIT_MET, EXIT_MISSED, EXIT_BAD_INPUT, EXIT_INCONCLUSIVE, EXIT_INVALID = 0, 1, 2, 3, 4

VERDICT_EXIT_CODES = {
    Verdict.MET: EXIT_MET,
    Verdict.MISSED: EXIT_MISSED,
    Verdict.INCONCLUSIVE: EXIT_INCONCLUSIVE,
}


class Record(BaseModel):
    """Base of every record: unknown fields are an error, so that a reader notices a newer writer.

    ``ADDED`` names the fields beyond DESIGN.md section 6. They are optional, and written only where they are known.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset()

    model_config = ConfigDict(extra="forbid")


def without_unknown_additions(record: Record, fields: dict[str, Any]) -> dict[str, Any]:
    """``fields``, the dump of ``record``, without the additions that are ``None``, at every level."""
    for name in type(record).model_fields:
        value = getattr(record, name)
        if value is None and name in record.ADDED:
            del fields[name]
        elif isinstance(value, Record):
            without_unknown_additions(value, fields[name])
        elif isinstance(value, list):
            for each, dumped in zip(value, fields.get(name, ()), strict=False):
                if isinstance(each, Record):
                    without_unknown_additions(each, dumped)
    return fields


class Summary(Record):
    """One quantity over a set of samples, in seconds. ``None`` where the sample is too small or absent.

    ``censored`` of the ``n`` values were still growing when the watching ended; ``at_least`` names the percentiles that are
    lower bounds for that reason.
    """

    n: int
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p99_ci: tuple[float, float] | None = None
    max: float | None = None
    p50_ci: tuple[float, float] | None = None
    p90_ci: tuple[float, float] | None = None
    p95_ci: tuple[float, float] | None = None
    censored: int | None = None
    at_least: tuple[str, ...] | None = None

    ADDED: ClassVar[frozenset[str]] = frozenset({"p50_ci", "p90_ci", "p95_ci", "censored", "at_least"})


class PhaseMeasures(Record):
    """Every figure of one phase (``M`` in DESIGN.md section 6). ``None`` where unknown."""

    offered: int
    ok: int
    late: int
    shed: int
    failed: int
    dropped: int
    unfinished: int
    duration_s: float
    ttft_s: Summary
    itl_s: Summary
    max_gap_s: Summary
    tpot_s: Summary
    e2e_s: Summary
    queue_wait_s: Summary | None = None
    goodput_rps: float
    goodput_fraction: float | None
    output_tokens_per_s: float
    prompt_tokens_per_s: float
    prefix_hit_rate: float | None = None
    kv_usage_peak: float | None = None
    preemptions: int | None = None
    acceptance_length: float | None = None
    output_tokens_per_usd: float | None = None
    usd_per_good_request: float | None = None
    # Beside the figures from the intended send: from the moment the bytes were handed to the socket.
    ttft_from_send_s: Summary | None = None
    e2e_from_send_s: Summary | None = None
    # Opening a connection, where one was opened; intended send to refusal (429, 503).
    connect_s: Summary | None = None
    refusal_s: Summary | None = None
    # The share of streams with a gap over ``stall_limit_s``.
    stalled_fraction: float | None = None
    stall_limit_s: float | None = None
    # Requests sent, retries included, over requests offered.
    amplification: float | None = None

    ADDED: ClassVar[frozenset[str]] = frozenset(
        {
            "ttft_from_send_s",
            "e2e_from_send_s",
            "connect_s",
            "refusal_s",
            "stalled_fraction",
            "stall_limit_s",
            "amplification",
        }
    )

    @model_validator(mode="after")
    def _classes_sum_to_offered(self) -> Self:
        ended = self.ok + self.late + self.shed + self.failed + self.dropped + self.unfinished
        if ended != self.offered:
            raise ValueError(f"classes sum to {ended}, offered is {self.offered}: a request was lost or counted twice")
        return self


class Measured(Record):
    """What was measured: the sustained phase and, if there was one, the burst."""

    sustained: PhaseMeasures
    burst: PhaseMeasures | None = None


class Predicted(Measured):
    """What was predicted, and where the coefficients of the prediction come from."""

    source: Literal["measured", "transferred", "physics"]


class SloCheck(Record):
    """One SLO of the requirement judged on one phase.

    ``metric`` and ``statistic`` as in the requirement (``ttft`` ``p95``; ``spread`` ``e2e``; ``goodput_fraction`` ``min``).
    ``interval`` is a 95 % interval of ``value`` or ``None`` where none can be had. ``asserted`` is the ``--assert`` that
    asked for it; such a check may be on more than a requirement can limit (``ttft`` ``mean``, ``output_tokens_per_s``
    ``min``), and ``sense`` says whether the limit is a least value.
    """

    metric: str
    statistic: str
    phase: Phase
    limit: float
    value: float | None
    interval: tuple[float, float] | None
    verdict: Verdict
    sense: Literal["at_least", "at_most"] | None = None
    asserted: str | None = None

    ADDED: ClassVar[frozenset[str]] = frozenset({"sense", "asserted"})


class SloReport(Record):
    """All checks of one candidate and what follows from them."""

    verdict: Verdict
    checks: list[SloCheck] = Field(default_factory=list)


class Candidate(Record):
    """One serving configuration: what was expected of it, what it did, and how that compares with the requirement."""

    name: str
    config: dict[str, Any]
    predicted: Predicted | None = None
    measured: Measured | None = None
    slo: SloReport
    client: dict[str, Any] | None = None
    """The load generator's account of itself, and how near the load was to the one asked for."""
    server: dict[str, Any] | None = None
    """What the server's own metrics say of the run, by phase."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"client", "server"})


class Validity(Record):
    """Whether the run may be believed at all, and if not, why not."""

    valid: bool
    reasons: list[str] = Field(default_factory=list)


class Report(Record):
    """``report.json``: the one schema of tune, measure and simulate."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    kind: Literal["tune", "measure", "simulate"]
    requirement: dict[str, Any] | None
    machine: dict[str, Any]
    candidates: list[Candidate]
    chosen: str | None
    why: str
    validity: Validity
    knee: dict[str, Any] | None = None
    """The search for the highest load that meets the requirement: its probes and what it found."""

    load: dict[str, Any] | None = None
    """How the load was put on, where it is not the open loop of the requirement alone: closed, a trace, retries, caps."""

    tuning: dict[str, Any] | None = None
    """The iterations of ``setpoint tune``: what was predicted and learned, what was done next and why (docs/tuning.md)."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"knee", "load", "tuning"})

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    def to_json(self) -> str:
        """The report as JSON text, keys as in DESIGN.md section 6 and those of ``ADDED`` that are known."""
        fields = without_unknown_additions(self, self.model_dump(by_alias=True))
        return to_json(fields, indent=2, inf_nan_mode="null").decode()

    def exit_code(self) -> int:
        """0 met, 1 missed, 3 inconclusive, 4 invalid run (2 is bad input: no report then)."""
        if not self.validity.valid:
            return EXIT_INVALID
        if self.chosen is None:
            verdicts = {candidate.slo.verdict for candidate in self.candidates}
            return EXIT_INCONCLUSIVE if Verdict.INCONCLUSIVE in verdicts else EXIT_MISSED
        chosen = next(candidate for candidate in self.candidates if candidate.name == self.chosen)
        return VERDICT_EXIT_CODES[chosen.slo.verdict]
