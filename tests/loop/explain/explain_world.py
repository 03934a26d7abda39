"""Run folders made on a virtual clock: the engine's real records, and the rows that a client would have written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from setpoint.loop.explain.without import limits_of
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.decisions import StepWork
from setpoint.policy.modes import build_policy
from setpoint.policy.step_time import StepTimeModel
from setpoint.policy.views import INTERACTIVE
from setpoint.record import Candidate, Measured, Report, SloReport, Validity, Verdict
from setpoint.record.columns import DECISION_COLUMNS, REQUEST_COLUMNS, STEP_COLUMNS
from setpoint.report.figures import PhaseSpan, classify_run, phase_measures
from setpoint.report.files import write_run
from setpoint.requirement import Requirement, parse_requirement
from setpoint.simulate.replay import Arrival, Outcome, Replayed, World, replay

NAME = "under-test"
WAY_S = 0.002
STREAMED = """
name: explained
model: smollm2-135m
profile:
  prompt_tokens: 64
  output_tokens: 24
  arrival: {process: poisson, rate: 8/s}
slo:
  ttft: {p95: 500ms}
  itl: {p95: 60ms}
"""
UNLIMITED = STREAMED[: STREAMED.index("slo:")]
WHOLE = STREAMED.replace("  ttft: {p95: 500ms}\n  itl: {p95: 60ms}", "  e2e: {p95: 1500ms}").replace(
    "  arrival", "  streaming: false\n  arrival"
)


def usual_step_s(work: StepWork, now_s: float) -> float:
    return 8e-3 + 3e-4 * work.tokens + 5e-4 * work.sequences


@dataclass(frozen=True)
class Load:
    """What is sent, on what: Poisson arrivals of ``rate_rps`` for ``duration_s``, some of them other tenants' or batch."""

    rate_rps: float = 30.0
    duration_s: float = 6.0
    seed: int = 1
    blocks: int = 512
    outputs: tuple[int, int] = (8, 40)
    tenants: int = 1
    batch: bool = False
    client_lag_s: float = 0.0
    step_s: Callable[[StepWork, float], float] = usual_step_s
    until_s: float = 1e6

    def arrivals(self, requirement: Requirement) -> list[Arrival]:
        dice = np.random.default_rng(self.seed)
        times = np.cumsum(dice.exponential(1 / self.rate_rps, size=int(3 * self.rate_rps * self.duration_s)))
        found = []
        for number, at_s in enumerate(times[times < self.duration_s].tolist()):
            output = int(dice.integers(*self.outputs))
            found.append(
                Arrival(
                    name=f"run-{number}",
                    at_s=at_s,
                    prompt_tokens=int(dice.integers(33, 160)),
                    output_tokens=output,
                    cap_tokens=output,
                    streaming=requirement.profile.streaming,
                    limits=limits_of(requirement),
                    request_class=1 if self.batch and number % 2 else INTERACTIVE,
                    tenant=f"t{number % self.tenants}" if self.tenants > 1 else "",
                )
            )
        return found


@dataclass(frozen=True)
class Made:
    """A run folder and what it was made of."""

    folder: Path
    played: Replayed
    table: pa.Table
    kinds: dict[str, int] = field(default_factory=dict)


def make_run(
    folder: Path,
    config: ServingConfig,
    load: Load,
    text: str = STREAMED,
    *,
    with_config: bool = True,
    with_steps: bool = True,
    with_decisions: bool = True,
) -> Made:
    """Serve ``load`` under ``config`` on a virtual clock and write the run as ``setpoint measure`` would."""
    requirement = parse_requirement(text, "explained.yaml")
    model = StepTimeModel()
    world = World(load.step_s, blocks=load.blocks, between_s=5e-4)
    played = replay(load.arrivals(requirement), build_policy(config, model), world, until_s=load.until_s, model=model)
    rows = [_row(outcome, load.client_lag_s) for outcome in played.outcomes]
    table = classify_run(pa.Table.from_pylist(rows, schema=REQUEST_COLUMNS), requirement)
    steps = _table(played.steps.columns(0)[0], STEP_COLUMNS)
    decided, _ = played.decisions.columns(0)
    decisions = _table({**decided, "operands": [list(each.items()) for each in decided["operands"]]}, DECISION_COLUMNS)  # type: ignore[attr-defined]
    figures = phase_measures(table, "sustained", PhaseSpan(0.0, load.duration_s), requirement.slo)  # type: ignore[arg-type]
    measured = Measured(sustained=figures)
    described = config.model_dump(mode="json") if with_config else {}
    candidate = Candidate(name=NAME, config=described, measured=measured, slo=SloReport(verdict=Verdict.MISSED))
    report = Report(
        kind="measure",
        requirement=requirement.model_dump(mode="json"),
        machine={},
        candidates=[candidate],
        chosen=None,
        why="",
        validity=Validity(valid=True),
    )
    kept_steps, kept_decisions = steps if with_steps else None, decisions if with_decisions else None
    write_run(folder, report, table, kept_steps, {}, decisions=kept_decisions)
    kinds = {kind: decided["kind"].count(kind) for kind in ("admit", "reject", "join", "preempt", "shed", "end")}
    return Made(folder, played, table, kinds)


def config(mode: BatchingMode = BatchingMode.SETPOINT, **changes: Any) -> ServingConfig:
    return ServingConfig(mode=mode, **{"max_running": 8, "token_budget": 256, "kv_cache_tokens": 512 * 32, **changes})


def _row(outcome: Outcome, lag_s: float) -> dict[str, Any]:
    arrival = outcome.arrival
    times = [moment_s + WAY_S for moment_s in outcome.token_times_s] if arrival.streaming else []
    refused = bool(outcome.refused) or outcome.finish == "shed"
    kind = "shed" if refused else "unfinished" if outcome.end_s is None else "ok"
    first_s, intended_s = (times[0] if times else None), arrival.at_s - lag_s
    end_s = None if outcome.end_s is None else outcome.end_s + WAY_S
    gaps = np.diff(times)
    return dict.fromkeys(REQUEST_COLUMNS.names) | {
        "candidate": NAME,
        "request_id": arrival.name,
        "phase": "sustained",
        "intended_s": intended_s,
        "sent_s": arrival.at_s,
        "first_token_s": first_s,
        "last_token_s": times[-1] if times and end_s is not None else None,
        "ended_s": end_s,
        "request_class": kind,
        "status": 503 if refused else 200,
        "streaming": arrival.streaming,
        "prompt_tokens": arrival.prompt_tokens,
        "output_tokens": None if refused else len(outcome.token_times_s),
        "cached_tokens": outcome.cached_tokens,
        "ttft_s": None if first_s is None else first_s - intended_s,
        "e2e_s": None if end_s is None or refused else end_s - intended_s,
        "tpot_s": float(gaps.mean()) if len(gaps) else None,
        "max_gap_s": float(gaps.max()) if len(gaps) else None,
        "token_times_s": times,
        "attempts": 1,
    }


def _table(columns: dict[str, list[object]], schema: pa.Schema) -> pa.Table:
    rows = len(next(iter(columns.values())))
    given = {**columns, "candidate": [NAME] * rows}
    return pa.Table.from_arrays([pa.array(given[name], schema.field(name).type) for name in schema.names], schema=schema)
