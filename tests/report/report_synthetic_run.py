"""A made-up but plausible run for tests: a small step-loop simulation per candidate, seeded, with real queueing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from setpoint.record import (
    Candidate,
    Measured,
    Phase,
    PhaseMeasures,
    Report,
    RequestClass,
    SloCheck,
    SloReport,
    Summary,
    Validity,
    Verdict,
)
from setpoint.record.columns import REQUEST_COLUMNS, STEP_COLUMNS

TTFT_LIMIT_S, ITL_LIMIT_S, BURST_TTFT_LIMIT_S = 0.5, 0.08, 2.5
PHASES = ((Phase.WARMUP, 8.0, 2.2), (Phase.SUSTAINED, 90.0, 2.2), (Phase.BURST, 15.0, 7.0), (Phase.RECOVERY, 12.0, 2.2))
KV_BLOCKS, BLOCK_TOKENS = 700, 32
CONFIGS: dict[str, dict[str, Any]] = {
    "immediate": {"mode": "immediate", "max_running": 1, "token_budget": 512},
    "static-8": {"mode": "static", "max_running": 8, "token_budget": 4096, "batch_wait_s": 0.5},
    "continuous-8": {"mode": "continuous", "max_running": 8, "token_budget": 512},
    "continuous-32": {"mode": "continuous", "max_running": 32, "token_budget": 512},
    "setpoint-32": {"mode": "setpoint", "max_running": 32, "token_budget": 512, "prefill_floor_tokens": 16},
}
REQUIREMENT: dict[str, Any] = {
    "name": "coding-assistant",
    "description": "Short prompts, long streamed answers: a person watches the cursor and reads along.",
    "model": {"source": "smollm2-135m"},
    "profile": {
        "prompt_tokens": {"kind": "lognormal", "median": 120, "p95": 400, "min": 48, "max": 800},
        "output_tokens": {"kind": "lognormal", "median": 90, "p95": 220, "min": 8, "max": 320},
        "shared_prefix_tokens": 32,
        "streaming": True,
        "arrival": {"process": "poisson", "rate_rps": 2.2},
        "burst": {"rate_rps": 7.0, "duration_s": 15.0},
    },
    "slo": {
        "latency": [
            {"metric": "ttft", "percentile": 95, "limit_s": TTFT_LIMIT_S},
            {"metric": "itl", "percentile": 99, "limit_s": ITL_LIMIT_S},
        ],
        "goodput_fraction_min": 0.9,
    },
    "slo_burst": {"latency": [{"metric": "ttft", "percentile": 95, "limit_s": BURST_TTFT_LIMIT_S}]},
    "objective": "max_goodput",
}
MACHINE: dict[str, Any] = {
    "cpu": "2 shared x86-64 cores, AVX-512 BF16",
    "memory_gib": 7.8,
    "command": "setpoint tune coding-assistant.yaml --output runs/coding-assistant",
    "started": "2026-11-20T14:05:09Z",
    "versions": {"setpoint": "0.1.0", "openvino": "2026.4.0", "python": "3.11.9"},
    "load_generator": {"cpu_share": 0.07, "send_lag_p99_s": 0.0021},
}


@dataclass(slots=True)
class Sim:
    """One request in the simulation. Times in seconds."""

    number: int
    phase: Phase
    intended_s: float
    prompt: int
    output: int
    prefilled: int = 0
    started_s: float | None = None
    token_times_s: list[float] = field(default_factory=list)
    shed: bool = False


def arrivals(rng: np.random.Generator) -> list[Sim]:
    """Poisson arrivals through all phases."""
    sims: list[Sim] = []
    start_s = 0.0
    for phase, duration_s, rate_rps in PHASES:
        at_s = start_s + rng.exponential(1 / rate_rps)
        while at_s < start_s + duration_s:
            prompt = int(np.clip(rng.lognormal(math.log(120), 0.7), 48, 800))
            output = int(np.clip(rng.lognormal(math.log(90), 0.5), 8, 320))
            sims.append(Sim(len(sims), phase, at_s, prompt, output))
            at_s += rng.exponential(1 / rate_rps)
        start_s += duration_s
    return sims


def _join(config: dict[str, Any], waiting: list[Sim], running: list[Sim], now_s: float) -> None:
    mode, room = config["mode"], config["max_running"] - len(running)
    if mode == "static":
        full = len(waiting) >= config["max_running"]
        waited = bool(waiting) and now_s - waiting[0].intended_s >= config["batch_wait_s"]
        room = room if not running and (full or waited) else 0
    if mode == "setpoint":
        for sim in [sim for sim in waiting if now_s - sim.intended_s > BURST_TTFT_LIMIT_S * 0.4]:
            sim.shed = True
            waiting.remove(sim)
    joining, waiting[:] = waiting[:room], waiting[room:]
    for sim in joining:
        sim.started_s = now_s
        running.append(sim)


def simulate(config: dict[str, Any], sims: list[Sim], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Run ``sims`` to their ends; returns step rows without the candidate."""
    waiting: list[Sim] = []
    running: list[Sim] = []
    steps: list[dict[str, Any]] = []
    upcoming, now_s = 0, 0.0
    while upcoming < len(sims) or waiting or running:
        assert len(steps) < 100_000, "the simulation does not end"
        while upcoming < len(sims) and sims[upcoming].intended_s <= now_s:
            waiting.append(sims[upcoming])
            upcoming += 1
        _join(config, waiting, running, now_s)
        if not running:
            now_s = max(now_s + 0.005, sims[upcoming].intended_s if not waiting and upcoming < len(sims) else 0.0)
            continue
        decodes = [sim for sim in running if sim.prefilled >= sim.prompt]
        budget = config["token_budget"] - len(decodes)
        if config["mode"] == "setpoint" and decodes:
            budget = max(16, int((ITL_LIMIT_S * 0.8 - 0.012 - 0.0009 * len(decodes)) / 0.00055))
        shown_budget, prefill = budget, 0
        for sim in running:
            chunk = min(sim.prompt - sim.prefilled, budget)
            sim.prefilled, budget, prefill = sim.prefilled + chunk, budget - chunk, prefill + chunk
        took_s = (0.012 + 0.0009 * len(decodes) + 0.00055 * prefill) * float(rng.lognormal(0, 0.07))
        used = sum(-(-(sim.prefilled + len(sim.token_times_s)) // BLOCK_TOKENS) for sim in running)
        steps.append(
            {
                "step": len(steps),
                "start_s": now_s,
                "end_s": now_s + took_s,
                "predicted_s": took_s,
                "prefill_tokens": prefill,
                "decode_tokens": len(decodes),
                "sequences": len(running),
                "kv_tokens_read": used * BLOCK_TOKENS,
                "attention_products": 0,
                "running": len(running),
                "waiting": len(waiting),
                "kv_used_blocks": used,
                "kv_blocks": KV_BLOCKS,
                "prefill_budget_tokens": shown_budget,
                "preempted": 0,
                "shed": 0,
                "reason": "synthetic",
            }
        )
        now_s += took_s
        for sim in running:
            if sim.prefilled >= sim.prompt:
                sim.token_times_s.append(now_s)
        running[:] = [sim for sim in running if len(sim.token_times_s) < sim.output]
    return steps


def _class(sim: Sim) -> RequestClass:
    if sim.shed:
        return RequestClass.SHED
    ttft_s = sim.token_times_s[0] - sim.intended_s
    limit_s = BURST_TTFT_LIMIT_S if sim.phase is Phase.BURST else TTFT_LIMIT_S
    gaps = np.diff(sim.token_times_s)
    slow = float((gaps > ITL_LIMIT_S).mean()) if len(gaps) else 0.0
    return RequestClass.OK if ttft_s <= limit_s and slow <= 0.01 else RequestClass.LATE


def request_row(candidate: str, sim: Sim) -> dict[str, Any]:
    """One row of ``REQUEST_COLUMNS``."""
    times_s = [at + 0.0006 for at in sim.token_times_s]
    first, last = (times_s[0], times_s[-1]) if times_s else (None, None)
    ended = last if last is not None else sim.intended_s + 0.004
    return {
        "candidate": candidate, "request_id": f"r{sim.number:05d}", "phase": str(sim.phase), "intended_s": sim.intended_s,
        "sent_s": sim.intended_s + 0.0003, "connected_s": sim.intended_s + 0.0005, "headers_s": sim.intended_s + 0.002,
        "first_token_s": first, "last_token_s": last, "ended_s": ended, "request_class": str(_class(sim)),
        "status": 503 if sim.shed else 200, "error": None, "finish_reason": None if sim.shed else "length",
        "streaming": True, "prompt_tokens": sim.prompt, "output_tokens": len(times_s), "cached_tokens": 32,
        "ttft_s": first - sim.intended_s if first is not None else None,
        "tpot_s": (last - first) / (len(times_s) - 1) if first is not None and last is not None and len(times_s) > 1 else None,
        "e2e_s": last - sim.intended_s if last is not None else None,
        "max_gap_s": float(np.diff(times_s).max()) if len(times_s) > 1 else None,
        "queue_wait_s": sim.started_s - sim.intended_s if sim.started_s is not None else None,
        "token_times_s": times_s,
    }  # fmt: skip


def summarise(values: NDArray[np.float64]) -> Summary:
    """Percentiles with a P99 interval from order statistics, where there are 100 values or more."""
    values = np.sort(values[np.isfinite(values)])
    n = len(values)
    if n == 0:
        return Summary(n=0)
    p50, p90, p95, p99 = (float(value) for value in np.quantile(values, [0.5, 0.9, 0.95, 0.99]))
    half = 1.96 * math.sqrt(n * 0.99 * 0.01)
    low, high = (int(np.clip(n * 0.99 + sign * half, 0, n - 1)) for sign in (-1, 1))
    interval = (float(values[low]), float(values[high])) if n >= 100 else None
    return Summary(n=n, mean=float(values.mean()), p50=p50, p90=p90, p95=p95, p99=p99, p99_ci=interval, max=float(values[-1]))


def measure(sims: list[Sim], rows: list[dict[str, Any]], phase: Phase, duration_s: float) -> PhaseMeasures:
    """Figures of one phase."""
    own = [row for row in rows if row["phase"] == str(phase)]

    def column(name: str) -> NDArray[np.float64]:
        return np.array([row[name] if row[name] is not None else np.nan for row in own], dtype=np.float64)

    gaps = [np.diff(row["token_times_s"]) for row in own if len(row["token_times_s"]) > 1]
    counts = {str(class_): sum(row["request_class"] == str(class_) for row in own) for class_ in RequestClass}
    return PhaseMeasures(
        offered=len(own),
        **counts,
        duration_s=duration_s,
        ttft_s=summarise(column("ttft_s")),
        itl_s=summarise(np.concatenate(gaps) if gaps else np.empty(0)),
        max_gap_s=summarise(column("max_gap_s")),
        tpot_s=summarise(column("tpot_s")),
        e2e_s=summarise(column("e2e_s")),
        queue_wait_s=summarise(column("queue_wait_s")),
        goodput_rps=counts["ok"] / duration_s,
        goodput_fraction=counts["ok"] / len(own) if own else None,
        output_tokens_per_s=float(column("output_tokens").sum())
        / max(duration_s, float(np.nanmax(column("ended_s")) - np.nanmin(column("intended_s")))),
        prompt_tokens_per_s=float(column("prompt_tokens").sum()) / duration_s,
        prefix_hit_rate=0.21,
        kv_usage_peak=0.46,
        preemptions=0,
    )


def judge(sustained: PhaseMeasures, burst: PhaseMeasures) -> SloReport:
    """The four checks of ``REQUIREMENT``, with rough intervals."""
    checks = []
    for metric, statistic, phase, limit, found in (
        ("ttft", "p95", Phase.SUSTAINED, TTFT_LIMIT_S, sustained.ttft_s),
        ("itl", "p99", Phase.SUSTAINED, ITL_LIMIT_S, sustained.itl_s),
        ("ttft", "p95", Phase.BURST, BURST_TTFT_LIMIT_S, burst.ttft_s),
    ):
        value = getattr(found, statistic)
        interval = (value * 0.93, value * 1.06)
        verdict = Verdict.MET if interval[1] <= limit else Verdict.MISSED if interval[0] > limit else Verdict.INCONCLUSIVE
        checks.append(
            SloCheck(
                metric=metric, statistic=statistic, phase=phase, limit=limit, value=value, interval=interval, verdict=verdict
            )
        )
    fraction = sustained.goodput_fraction or 0.0
    spread = 1.96 * math.sqrt(max(fraction * (1 - fraction), 1e-6) / max(sustained.offered, 1))
    checks.append(
        SloCheck(
            metric="goodput_fraction",
            statistic="min",
            phase=Phase.SUSTAINED,
            limit=0.9,
            value=fraction,
            interval=(max(0.0, fraction - spread), min(1.0, fraction + spread)),
            verdict=Verdict.MET
            if fraction - spread >= 0.9
            else Verdict.MISSED
            if fraction + spread < 0.9
            else Verdict.INCONCLUSIVE,
        )
    )
    verdicts = {check.verdict for check in checks}
    worst = next(v for v in (Verdict.MISSED, Verdict.INCONCLUSIVE, Verdict.MET) if v in verdicts)
    return SloReport(verdict=worst, checks=checks)


def synthetic_run(seed: int = 7, names: tuple[str, ...] = tuple(CONFIGS)) -> tuple[Report, pa.Table, pa.Table]:
    """A whole run: report, requests and steps of the candidates ``names`` of ``CONFIGS``."""
    rows: list[dict[str, Any]] = []
    step_rows: list[dict[str, Any]] = []
    candidates = []
    for name in names:
        sims = arrivals(np.random.default_rng(seed))
        steps = simulate(CONFIGS[name], sims, np.random.default_rng(seed + 1))
        own = [request_row(name, sim) for sim in sims]
        rows += own
        step_rows += [{"candidate": name, **step} for step in steps]
        sustained, burst = (measure(sims, own, phase, duration_s) for phase, duration_s, _ in PHASES[1:3])
        measured = Measured(sustained=sustained, burst=burst)
        candidates.append(Candidate(name=name, config=CONFIGS[name], measured=measured, slo=judge(sustained, burst)))
    chosen = next((c.name for c in reversed(candidates) if c.slo.verdict is Verdict.MET), None)
    report = Report(
        kind="tune" if len(names) > 1 else "measure",
        requirement=REQUIREMENT,
        machine=MACHINE,
        candidates=candidates,
        chosen=chosen,
        why="setpoint-32 meets every limit and has the highest goodput. Its prefill is sized to the slack of the running "
        "requests, so tokens keep their pace while prompts are read, and a burst is shed where it cannot be served in time.",
        validity=Validity(valid=True, reasons=["The load generator used 7 % of one core; its send lag was 2.1 ms at P99."]),
    )
    requests = pa.Table.from_pylist(rows, schema=REQUEST_COLUMNS)
    return report, requests, pa.Table.from_pylist(step_rows, schema=STEP_COLUMNS)


HOSTILE_NAME = "<script>document.title='owned'</script>[bold red]\"'&\x1b[31m\x07"


def hostile_report() -> tuple[Report, pa.Table, pa.Table]:
    """A run whose every text tries to be markup."""
    report, requests, steps = synthetic_run(names=("continuous-8", "setpoint-32"))
    first = report.candidates[0].model_copy(
        update={"name": HOSTILE_NAME, "config": {"mode": HOSTILE_NAME, HOSTILE_NAME: [HOSTILE_NAME]}}
    )
    renamed = report.model_copy(
        update={
            "candidates": [first, report.candidates[1]],
            "chosen": HOSTILE_NAME,
            "why": f"{HOSTILE_NAME} was chosen. setpoint-32 lost: {HOSTILE_NAME}.",
            "requirement": {"name": HOSTILE_NAME, HOSTILE_NAME: HOSTILE_NAME, "description": HOSTILE_NAME},
            "machine": {HOSTILE_NAME: {HOSTILE_NAME: HOSTILE_NAME}},
            "validity": Validity(valid=False, reasons=[HOSTILE_NAME]),
        }
    )
    tables = []
    for table in (requests, steps):
        names = [HOSTILE_NAME if name == "continuous-8" else name for name in table.column("candidate").to_pylist()]
        tables.append(table.set_column(0, table.schema.field("candidate"), pa.array(names, pa.string())))
    return renamed, tables[0], tables[1]


def bare_report(candidates: int) -> tuple[Report, pa.Table, None]:
    """A report in which nothing is known that need not be, without requests and without steps."""
    nothing = Summary(n=0)
    figures = PhaseMeasures(
        offered=0, ok=0, late=0, shed=0, failed=0, dropped=0, unfinished=0, duration_s=0.0, ttft_s=nothing, itl_s=nothing,
        max_gap_s=nothing, tpot_s=nothing, e2e_s=nothing, goodput_rps=0.0, goodput_fraction=None,
        output_tokens_per_s=0.0, prompt_tokens_per_s=0.0,
    )  # fmt: skip
    check = SloCheck(
        metric="ttft", statistic="p95", phase=Phase.SUSTAINED, limit=0.5, value=None, interval=None,
        verdict=Verdict.INCONCLUSIVE,
    )  # fmt: skip
    report = Report(
        kind="measure" if candidates == 1 else "tune",
        requirement=None,
        machine={},
        candidates=[
            Candidate(
                name=f"candidate-{index}",
                config={},
                measured=Measured(sustained=figures, burst=figures if index == 0 else None) if index < 2 else None,
                slo=SloReport(verdict=Verdict.INCONCLUSIVE, checks=[check]),
            )
            for index in range(candidates)
        ],
        chosen=None,
        why="",
        validity=Validity(valid=True),
    )
    return report, REQUEST_COLUMNS.empty_table(), None
