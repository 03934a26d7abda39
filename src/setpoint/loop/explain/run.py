"""A run as ``explain`` needs it: one candidate's requests, steps and decisions, joined by request id and by time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from setpoint.loop.errors import BadInput
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.record import Candidate, Phase
from setpoint.report.files import Run, read_run
from setpoint.requirement import Requirement
from setpoint.simulate.machine import FloatColumn, MeasuredSteps

DEFAULT_BLOCK_TOKENS = 32
TOKEN_TIMES = "token_times_s"
MODE_OF_CODE = {
    "fixed_budget": BatchingMode.CONTINUOUS,
    "one_at_a_time": BatchingMode.IMMEDIATE,
    "batch_runs": BatchingMode.STATIC,
    "batch_full": BatchingMode.STATIC,
    "batch_wait_over": BatchingMode.STATIC,
}


class Decision(NamedTuple):
    """A row of ``decisions.parquet``; ``operands`` by name."""

    decision: int
    time_s: float
    step: int
    kind: str
    request_id: str
    other_id: str | None
    code: str
    operands: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Steps:
    """``steps.parquet`` of the candidate, in order; ``numbers`` are the engine's.

    preempted, drafts: how many requests were, or had one; 0 where it is not told.
    """

    numbers: FloatColumn
    measured: MeasuredSteps
    predicted_s: FloatColumn
    waiting: FloatColumn
    kv_used_blocks: FloatColumn
    kv_blocks: int
    budget_tokens: FloatColumn
    codes: list[str]
    reasons: list[str]
    preempted: FloatColumn
    drafts: FloatColumn

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def seconds(self) -> FloatColumn:
        """How long each took."""
        return self.measured.end_s - self.measured.start_s


@dataclass(frozen=True, slots=True)
class ExplainedRun:
    """One candidate of a run. table: its requests; rows: the same without the warm-up (``rows_of``).

    decisions: by request id, in order; ``None`` where they were not recorded, missing_decisions: overwritten before they were
    read. config: ``None`` where the run does not tell it; inferred: whether it was read off the steps instead of the report.
    last_decision_s: when the last of the decisions that were read was made.
    """

    folder: Path
    candidate: Candidate
    requirement: Requirement | None
    table: pa.Table
    rows: list[dict[str, Any]]
    steps: Steps | None
    decisions: dict[str, list[Decision]] | None
    missing_decisions: int
    config: ServingConfig | None
    inferred: bool
    no_step_ran: bool = False
    last_decision_s: float | None = None

    @property
    def every_decision(self) -> list[Decision]:
        """All decisions about requests of the phases explained, in the order in which they were made."""
        ids = {row["request_id"] for row in self.rows}
        every = [each for name, some in (self.decisions or {}).items() if name in ids for each in some]
        return sorted(every, key=lambda each: each.decision)

    @property
    def own_engine(self) -> bool:
        """Whether the server was setpoint's: only that records steps and decisions."""
        return self.steps is not None or self.decisions is not None or self.no_step_ran

    @property
    def block_tokens(self) -> int:
        """Tokens of a KV block."""
        if self.steps is None or self.config is None or self.inferred or not self.steps.kv_blocks:
            return DEFAULT_BLOCK_TOKENS
        return max(1, self.config.kv_cache_tokens // self.steps.kv_blocks)


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of requests. The times of tokens stay in Arrow: of a long run they are many, and few are looked at."""
    rows: list[dict[str, Any]] = table.drop_columns([TOKEN_TIMES]).to_pylist()
    for row, times in zip(rows, table[TOKEN_TIMES], strict=True):
        row[TOKEN_TIMES] = times
    return rows


def token_times_s(row: Mapping[str, Any]) -> FloatColumn:
    """When the tokens of a row of ``rows_of`` came; empty where it is not told."""
    values = row[TOKEN_TIMES].values
    return np.empty(0) if values is None else np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)


def read_explained(folder: Path, candidate: str | None) -> ExplainedRun:
    """Read the run in ``folder``. Raises ``BadInput`` (which candidate?) and ``RunFolderError`` (missing, unreadable)."""
    if not folder.exists():
        raise BadInput(f"{folder}: no such folder; give the folder that measure or tune wrote with --output")
    run = read_run(folder)
    chosen = _candidate(folder, run, candidate)
    table = run.requests.filter(pc.equal(run.requests["candidate"], chosen.name))
    explained = table.filter(pc.not_equal(table["phase"], str(Phase.WARMUP)))
    if not explained.num_rows:
        raise BadInput(f"{folder}: {chosen.name} has no requests outside the warm-up, so there is nothing to explain")
    steps = _steps(run.steps, chosen.name)
    decisions, missing = _decisions(run.decisions, chosen.name)
    config, inferred = _config(chosen, steps)
    return ExplainedRun(
        folder=folder,
        candidate=chosen,
        requirement=_requirement(run),
        table=table,
        rows=rows_of(explained),
        steps=steps,
        decisions=decisions,
        missing_decisions=missing,
        config=config,
        inferred=inferred,
        no_step_ran=steps is None and run.steps is not None,
        last_decision_s=max((each.time_s for some in (decisions or {}).values() for each in some), default=None),
    )


def _candidate(folder: Path, run: Run, name: str | None) -> Candidate:
    measured = {each.name: each for each in run.report.candidates if each.measured is not None}
    if not measured:
        raise BadInput(f"{folder}: nothing was measured in this run")
    if name is not None:
        if name not in measured:
            raise BadInput(f"--candidate {name}: not measured in this run; there are {', '.join(measured)}")
        return measured[name]
    if len(measured) == 1:
        return next(iter(measured.values()))
    if run.report.chosen in measured:
        return measured[run.report.chosen]
    raise BadInput(
        f"{folder}: found {len(measured)} candidates and none was chosen; add --candidate, one of {', '.join(measured)}"
    )


def _requirement(run: Run) -> Requirement | None:
    if run.report.requirement is None:
        return None
    try:
        return Requirement.model_validate(run.report.requirement)
    except ValidationError:
        return None  # A report of another version: what needs the limits is then left out.


def _steps(table: pa.Table | None, candidate: str) -> Steps | None:
    if table is None:
        return None
    table = table.filter(pc.equal(table["candidate"], candidate)).sort_by("step")
    if not table.num_rows:
        return None

    def column(name: str) -> FloatColumn:
        return np.asarray(pc.cast(table[name], pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)

    names = (
        "start_s",
        "end_s",
        "prefill_tokens",
        "decode_tokens",
        "sequences",
        "kv_tokens_read",
        "attention_products",
        "running",
    )
    reasons = [str(reason or "") for reason in table["reason"].to_pylist()]
    return Steps(
        numbers=column("step"),
        measured=MeasuredSteps(**{name: column(name) for name in names}),
        predicted_s=column("predicted_s"),
        waiting=column("waiting"),
        kv_used_blocks=column("kv_used_blocks"),
        kv_blocks=int(pc.max(table["kv_blocks"]).as_py() or 0),
        budget_tokens=column("prefill_budget_tokens"),
        codes=[reason.split(" ", 1)[0] for reason in reasons],
        reasons=reasons,
        preempted=np.nan_to_num(column("preempted")),
        drafts=np.nan_to_num(column("drafts")),
    )


def _decisions(table: pa.Table | None, candidate: str) -> tuple[dict[str, list[Decision]] | None, int]:
    """By request id; and how many are missing between the first and the last."""
    if table is None:
        return None, 0
    table = table.filter(pc.equal(table["candidate"], candidate)).sort_by("decision")
    found: dict[str, list[Decision]] = {}
    for row in table.drop_columns(["candidate"]).to_pylist():
        if row["request_id"] is not None:
            row["operands"] = dict(row["operands"] or ())
            found.setdefault(row["request_id"], []).append(Decision(**row))
    if not table.num_rows:
        return found, 0
    bounds = pc.min_max(table["decision"]).as_py()
    return found, max(0, bounds["max"] - bounds["min"] + 1 - table.num_rows)


def _config(candidate: Candidate, steps: Steps | None) -> tuple[ServingConfig | None, bool]:
    """The serving configuration; for a server that was measured by its URL as far as its steps show it."""
    try:
        if candidate.config:
            return ServingConfig.model_validate(candidate.config), False
    except ValidationError:
        pass  # Of another version, or of an engine that is not ours.
    if steps is None:
        return None, False
    mode = next((MODE_OF_CODE[code] for code in steps.codes if code in MODE_OF_CODE), BatchingMode.SETPOINT)
    most_tokens = int(np.max(steps.budget_tokens + steps.measured.decode_tokens))
    running = int(np.max(steps.measured.sequences))
    cache = steps.kv_blocks * DEFAULT_BLOCK_TOKENS
    config = ServingConfig(mode=mode, max_running=max(1, running), token_budget=max(1, min(most_tokens, 65536)))
    return config.model_copy(update={"kv_cache_tokens": cache or config.kv_cache_tokens}), True
