"""Small run folders for tests of the index: a report with few figures, and for calibrations steps that follow a formula."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from setpoint.loop.writing import circumstances
from setpoint.record import Candidate, Measured, PhaseMeasures, Report, SloReport, Summary, Validity, Verdict
from setpoint.record.columns import REQUEST_COLUMNS, STEP_COLUMNS
from setpoint.report.files import write_run

CONFIG = {"mode": "setpoint", "max_running": 16, "token_budget": 512}
STEP_S, TOKEN_S = 0.004, 0.0004


def figures(p50_s: float, goodput: float) -> PhaseMeasures:
    """A hundred requests of which a share of ``goodput`` were good, with a TTFT of ``p50_s``."""
    ok = round(100 * goodput)
    ttft, nothing = Summary(n=100, mean=p50_s, p50=p50_s, p99=3 * p50_s), Summary(n=0)
    return PhaseMeasures(
        offered=100, ok=ok, late=100 - ok, shed=0, failed=0, dropped=0, unfinished=0, duration_s=50.0, ttft_s=ttft,
        itl_s=nothing, max_gap_s=nothing, tpot_s=nothing, e2e_s=nothing, goodput_rps=2 * goodput, goodput_fraction=goodput,
        output_tokens_per_s=100.0, prompt_tokens_per_s=100.0,
    )  # fmt: skip


def report_of(
    name: str = "chat",
    *,
    goodput: float = 0.9,
    kind: Literal["tune", "measure"] = "measure",
    verdict: Verdict = Verdict.MET,
    machine: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
) -> Report:
    """A report of one candidate."""
    measured = Measured(sustained=figures(0.05 / goodput, goodput))
    slo = SloReport(verdict=verdict)
    return Report(
        kind=kind,
        requirement={"name": name, "model": {"source": "smollm2-135m"}, "slo": {"ttft": 0.5}},
        machine=circumstances() | (machine or {}),
        candidates=[Candidate(name="setpoint-16", config=config or CONFIG, measured=measured, slo=slo)],
        chosen="setpoint-16" if verdict is Verdict.MET else None,
        why="",
        validity=Validity(valid=True),
    )


def stored(folder: Path, started_s: float = 1_700_000_000.0, report: Report | None = None) -> Path:
    """A run folder as the index reads it: ``report.json`` and ``run.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    made = report or report_of()
    (folder / "report.json").write_text(made.to_json(), encoding="utf-8")
    info = {"kind": made.kind, "started_unix_s": started_s, "ended_unix_s": started_s + 60.0}
    (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


def with_steps(folder: Path, count: int, *, seed: int = 0, slower: float = 1.0, report: Report | None = None) -> Path:
    """A whole run of ``count`` steps that take ``slower`` times ``STEP_S`` and ``TOKEN_S`` a token, with a little noise."""
    random = np.random.default_rng(seed)
    steps, at_s = [], 0.0
    for number in range(count):
        tokens = int(random.integers(1, 33))
        took_s = slower * (STEP_S + TOKEN_S * tokens) * float(random.normal(1.0, 0.02))
        steps.append(
            dict.fromkeys(STEP_COLUMNS.names)
            | {"candidate": "setpoint-16", "step": number, "start_s": at_s, "end_s": at_s + took_s, "reason": "decode"}
            | {"prefill_tokens": 0, "decode_tokens": tokens, "sequences": tokens, "running": tokens, "waiting": 0}
            | {"kv_tokens_read": 100 * tokens, "attention_products": 100 * tokens}
        )
        at_s += took_s + 0.0002
    requests = [
        dict.fromkeys(REQUEST_COLUMNS.names)
        | {"candidate": "setpoint-16", "request_id": str(number), "intended_s": number * 0.1, "streaming": True}
        | {"first_token_s": number * 0.1 + 0.02, "ended_s": number * 0.1 + 0.2, "request_class": "ok"}
        for number in range(20)
    ]
    info = {"kind": "measure", "started_unix_s": 1_700_000_000.0 + seed, "ended_unix_s": 1_700_000_060.0 + seed}
    made = report or report_of()
    tables = pa.Table.from_pylist(requests, schema=REQUEST_COLUMNS), pa.Table.from_pylist(steps, schema=STEP_COLUMNS)
    write_run(folder, made, *tables, info)
    return folder
