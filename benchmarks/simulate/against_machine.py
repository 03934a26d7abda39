"""The simulator against this machine: calibrated on one run of the embedded engine, it replays the arrivals of others.

    .venv/bin/python benchmarks/simulate/against_machine.py --runs runs/simulate --output against_machine.json
    .venv/bin/python benchmarks/simulate/against_machine.py --runs runs/simulate --output against_machine.json --offline

The first run of all calibrates (``CALIBRATION``: light, with two bursts over capacity, so that every size of batch is seen);
``POINTS`` are other loads, profiles and modes, each measured twice. Loads are shares of what the simulator, so calibrated,
takes for the capacity of the configuration. A point that is in ``--runs`` is not measured again; ``--offline`` measures
nothing. About 11 minutes on a machine that is else idle.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "contention"))
from driving import Load as Driven
from driving import put, requirement_of, serving

from setpoint.loop.simulation.figures import growing, phase_figures, phase_requests
from setpoint.measure.target import Target
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.record import Phase, RequestClass
from setpoint.report.machine import machine_facts
from setpoint.report.request_samples import SERVED, read_requests
from setpoint.report.span import PhaseSpan
from setpoint.report.steady import drift
from setpoint.simulate.calibrated import CalibratedMachine, calibrate
from setpoint.simulate.load import Load, PhaseOfLoad
from setpoint.simulate.naming import SharedPrefixes
from setpoint.simulate.offered import limits_of
from setpoint.simulate.run import Simulated, SimulatedSystem, simulate
from setpoint.simulate.sequences import Kind

BLOCK_TOKENS = 32
WARMUP_S, SUSTAINED_S, DRAIN_S = 3.0, 18.0, 6.0
SIMULATIONS = 7
REPEATS = 2
BARS = {"p50": 0.07, "p99": 0.15, "throughput": 0.03}
CONFIGS = {
    "continuous": ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=16, token_budget=256),
    "setpoint": ServingConfig(mode=BatchingMode.SETPOINT, max_running=16),
    "static": ServingConfig(mode=BatchingMode.STATIC, max_running=8, token_budget=512, batch_wait_s=0.2),
    "immediate": ServingConfig(mode=BatchingMode.IMMEDIATE, token_budget=512),
}


@dataclass(frozen=True, slots=True)
class Point:
    """One real run, and its simulation. ``share``: load as a share of the simulated capacity."""

    profile: str
    mode: str
    share: float
    seed: int

    @property
    def name(self) -> str:
        """As files are called."""
        return f"{self.profile}_{self.mode}_{self.share:g}"


CALIBRATION = Point("coding-assistant", "continuous", 0.7, 99)
CALIBRATION_RPS, CALIBRATION_S = 1.5, 20.0
CALIBRATION_BURSTS, CALIBRATION_BURST_RPS, CALIBRATION_BURST_S, CALIBRATION_RECOVERY_S = 2, 8.0, 8.0, 9.0
POINTS = (
    Point("coding-assistant", "continuous", 0.5, 1),
    Point("coding-assistant", "continuous", 0.85, 2),
    Point("coding-assistant", "continuous", 1.2, 3),
    Point("coding-assistant", "setpoint", 0.85, 4),
    Point("coding-assistant", "setpoint", 1.2, 5),
    Point("coding-assistant", "immediate", 0.6, 6),
    Point("recommendation", "continuous", 0.5, 7),
    Point("recommendation", "continuous", 0.85, 8),
    Point("recommendation", "continuous", 1.2, 9),
    Point("recommendation", "setpoint", 1.2, 10),
    Point("recommendation", "static", 0.5, 11),
    Point("recommendation", "static", 0.8, 12),
)


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="The simulator against this machine.")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the real runs")
    parser.add_argument("--output", type=Path, required=True, help="JSON to write")
    parser.add_argument("--offline", action="store_true", help="measure nothing: simulate what is in --runs again")
    parser.add_argument("--points", type=int, default=len(POINTS), help="only so many points")
    told = parser.parse_args()
    told.runs.mkdir(parents=True, exist_ok=True)
    if not told.offline:
        measure(CALIBRATION, "calibration", CALIBRATION_RPS, CALIBRATION_S, told.runs)
    machine = calibrated(told.runs / "calibration")
    document: dict[str, Any] = {
        "machine": machine_facts(),
        "calibration": calibration_facts(machine),
        "bars": BARS,
        "points": [],
    }
    for point in POINTS[: told.points]:
        rate_rps = rate_of(point, machine, told.runs)
        for repeat in range(REPEATS):
            if not told.offline:
                measure(point, f"{point.name}_{repeat}", rate_rps, SUSTAINED_S, told.runs)
        runs = [told.runs / f"{point.name}_{repeat}" for repeat in range(REPEATS)]
        if all((run / "plan.json").exists() for run in runs):
            document["points"].append(compared(point, rate_rps, runs, machine))
            print(words(document["points"][-1]), flush=True)
    document["within"] = sum(each["within"] for each in document["points"])
    told.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"{document['within']} of {len(document['points'])} points within every bar")
    return 0


def measure(point: Point, name: str, rate_rps: float, sustained_s: float, runs: Path) -> None:
    """A real run into its folder, unless it is there."""
    folder = runs / name
    if (folder / "plan.json").exists():
        return
    driven = Driven(point.profile, rate_rps, sustained_s, warmup_s=WARMUP_S, drain_s=DRAIN_S, seed=point.seed)
    if point == CALIBRATION:
        driven = replace(
            driven,
            bursts=CALIBRATION_BURSTS,
            burst_rps=CALIBRATION_BURST_RPS,
            burst_s=CALIBRATION_BURST_S,
            recovery_s=CALIBRATION_RECOVERY_S,
        )

    async def work(target: Target) -> None:
        run = await put(target, driven)
        folder.mkdir(parents=True, exist_ok=True)
        for table, rows in (("requests", run.result.requests(name)), ("steps", run.result.steps(name))):
            assert rows is not None
            pq.write_table(rows, folder / f"{table}.parquet")
        if (decisions := run.result.decisions(name)) is not None:
            pq.write_table(decisions, folder / "decisions.parquet")
        plan = {
            "sent_s": [each.intended_s for each in run.plan.requests],
            "prompt_tokens": [each.prompt_tokens for each in run.plan.requests],
            "output_tokens": [each.max_tokens for each in run.plan.requests],
            "phase": [str(each.phase) for each in run.plan.requests],
            "spans": [[str(each.phase), each.start_s, each.end_s] for each in run.plan.phases],
            "rate_rps": rate_rps,
        }
        (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")

    serving(point.profile, CONFIGS[point.mode], work)


def calibrated(folder: Path) -> CalibratedMachine:
    """The machine of the calibration run."""
    decisions = folder / "decisions.parquet"
    table = pq.read_table(decisions) if decisions.exists() else None
    return calibrate(pq.read_table(folder / "steps.parquet"), pq.read_table(folder / "requests.parquet"), table)


def load_of(point: Point, plan: dict[str, Any]) -> Load:
    """The identical arrivals, as the simulator takes them."""
    requirement = requirement_of(point.profile)
    phases = tuple(PhaseOfLoad(Phase(name), start_s, end_s) for name, start_s, end_s in plan["spans"])
    order = np.argsort(np.array(plan["sent_s"]), kind="stable")
    names = [str(phase.phase) for phase in phases]
    prompts, outputs = (np.array(plan[name])[order] for name in ("prompt_tokens", "output_tokens"))
    shared = np.minimum(requirement.profile.shared_prefix_tokens, prompts - 1)
    return Load(
        np.array(plan["sent_s"])[order],
        prompts,
        outputs,
        outputs,
        phases,
        np.array([names.index(each) for each in plan["phase"]])[order],
        (Kind(streaming=requirement.profile.streaming, limits=limits_of(requirement.slo)),),
        named=SharedPrefixes(np.zeros(len(order), dtype=np.int64), shared),
        drain_s=DRAIN_S,
    )


def system_of(point: Point, machine: CalibratedMachine) -> SimulatedSystem:
    """The embedded engine on the calibrated machine."""
    config = CONFIGS[point.mode]
    blocks = config.kv_cache_tokens // BLOCK_TOKENS
    return SimulatedSystem(
        machine.timer, blocks, BLOCK_TOKENS, config, overheads=machine.overheads, noise=machine.noise, model=machine.model
    )


def rate_of(point: Point, machine: CalibratedMachine, runs: Path) -> float:
    """The point's load in requests/s: its share of what the simulated configuration gets done when it always has enough."""
    known = runs / f"{point.name}_0" / "plan.json"
    if known.exists():
        return float(json.loads(known.read_text(encoding="utf-8"))["rate_rps"])
    profile = requirement_of(point.profile).profile
    dice = np.random.default_rng(0)
    size = 400
    from setpoint.workload.lengths import draw_tokens

    prompts, outputs = draw_tokens(profile.prompt_tokens, size, dice), draw_tokens(profile.output_tokens, size, dice)
    shared = np.minimum(profile.shared_prefix_tokens, prompts - 1)
    named = SharedPrefixes(np.zeros(size, dtype=np.int64), shared)
    phases = (PhaseOfLoad(Phase.SUSTAINED, 0.0, 1.0),)
    every = np.zeros(size)
    load = Load(every, prompts, outputs, outputs, phases, every.astype(np.int64), named=named)
    config = CONFIGS[point.mode if point.mode != "setpoint" else "continuous"]
    done = simulate(
        load, SimulatedSystem(machine.timer, 1024, BLOCK_TOKENS, config, overheads=machine.overheads, noise=machine.noise)
    )
    return round(point.share * size / done.end_s, 3)


def real_figures(point: Point, folder: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """What a real run came to: latencies of the sustained phase in seconds, output tokens a second, whether a backlog grew."""
    table = pq.read_table(folder / "requests.parquet")
    span = next(PhaseSpan(start_s, end_s) for name, start_s, end_s in plan["spans"] if name == "sustained")
    every = read_requests(table.sort_by("intended_s"))
    rows = read_requests(table.filter(pa.compute.equal(table["phase"], "sustained")))
    gaps, _, _ = rows.gaps()
    samples = {"ttft": rows.ttft_s(), "e2e": rows.e2e_s(), "itl": gaps}
    tokens = every.token_times_s
    output = float(((tokens >= span.start_s) & (tokens < span.end_s)).sum())
    if not len(tokens):
        ended = (every.end_s >= span.start_s) & (every.end_s < span.end_s) & every.is_class(*SERVED)
        output = float(np.nansum(every.output_tokens[ended]))
    return figures(samples, output / span.duration_s, drift(every, span)[0], len(rows), rows.count(RequestClass.SHED))


def simulated_figures(done: Simulated) -> dict[str, Any]:
    """The same of a simulation."""
    rows = phase_requests(done, Phase.SUSTAINED)
    found = phase_figures(
        done, Phase.SUSTAINED, requirement_of("recommendation").slo.model_copy(update={"latency": (), "spread": ()})
    )
    result = figures(
        {"ttft": rows.ttft_s(), "e2e": rows.e2e_s()}, found.output_tokens_per_s, growing(done), len(rows), found.shed
    )
    result["itl"] = {"p50": found.itl_s.p50, "p99": found.itl_s.p99}
    return result


def figures(samples: dict[str, Any], output_per_s: float, overloaded: bool, offered: int, shed: int) -> dict[str, Any]:
    """Percentiles by name, and what else is compared."""
    found: dict[str, Any] = {
        "output_tokens_per_s": output_per_s,
        "overloaded": bool(overloaded),
        "offered": offered,
        "shed": int(shed),
    }
    for name, values in samples.items():
        known = values[np.isfinite(values)]
        p50, p99 = np.percentile(known, [50, 99]).tolist() if len(known) else (None, None)
        found[name] = {"p50": p50, "p99": p99}
    return found


def compared(point: Point, rate_rps: float, runs: list[Path], machine: CalibratedMachine) -> dict[str, Any]:
    """A point: both real runs, the median of the simulations, and each figure's error against its bar."""
    plan = json.loads((runs[0] / "plan.json").read_text(encoding="utf-8"))
    real = [real_figures(point, run, json.loads((run / "plan.json").read_text(encoding="utf-8"))) for run in runs]
    load, system = load_of(point, plan), system_of(point, machine)
    each = [simulated_figures(simulate(load, system, seed=seed)) for seed in range(SIMULATIONS)]
    checks: dict[str, Any] = {}
    for metric in ("ttft", "itl", "e2e"):
        for level in ("p50", "p99"):
            truth = [run[metric][level] for run in real]
            told = [one[metric][level] for one in each]
            if None in truth or None in told:
                continue
            checks[f"{metric}_{level}"] = check(truth, told, level)
    truth = [run["output_tokens_per_s"] for run in real]
    checks["throughput"] = check(truth, [one["output_tokens_per_s"] for one in each], "throughput")
    regime = sum(one["overloaded"] for one in each) * 2 > len(each)
    same = regime in {run["overloaded"] for run in real}
    return {
        "name": point.name,
        "rate_rps": rate_rps,
        "real": real,
        "machine_slower": [slower(run, machine) / slower(runs[0].parent / "calibration", machine) for run in runs],
        "simulated": {"overloaded": regime, "shed": float(np.median([one["shed"] for one in each]))},
        "checks": checks,
        "regime_agrees": same,
        "within": same and all(found["within"] for found in checks.values()),
    }


def slower(folder: Path, machine: CalibratedMachine) -> float:
    """Seconds in a run's steps over those of the model; over the calibration run's own it is the machine's drift since."""
    table = pq.read_table(folder / "steps.parquet").to_pydict()
    took_s = predicted_s = 0.0
    last = -1
    names = ("prefill_tokens", "decode_tokens", "sequences", "kv_tokens_read", "attention_products", "start_s", "end_s")
    for prefill, decode, sequences, read, products, start_s, end_s in zip(*(table[name] for name in names), strict=True):
        base_s, read_s, product_s = machine.timer.affine(prefill + decode, sequences)
        predicted_s += base_s + read_s * read + product_s * products
        predicted_s += machine.overheads.change_s if prefill + decode != last else 0.0
        took_s, last = took_s + end_s - start_s, prefill + decode
    return float(took_s / predicted_s)


def check(truth: list[float], told: list[float], level: str) -> dict[str, Any]:
    """The median of the simulations against the mean of the real runs; a P99 may be off by 1.5 times their difference."""
    mean, value = float(np.mean(truth)), float(np.median(told))
    apart = abs(truth[0] - truth[1]) / mean
    bar = max(BARS[level], 1.5 * apart) if level == "p99" else BARS[level]
    error = value / mean - 1.0
    return {"real": truth, "simulated": value, "error": error, "repeats_apart": apart, "bar": bar, "within": abs(error) <= bar}


def calibration_facts(machine: CalibratedMachine) -> dict[str, Any]:
    """What was learned, for the reader."""
    overheads = machine.overheads
    return {
        "steps": len(machine.works),
        "coefficients": machine.timer.coefficients,
        "tiers": machine.timer.tiers,
        "overheads": {name: getattr(overheads, name) for name in type(overheads).__dataclass_fields__},
        "noise": np.percentile(machine.noise.steps, [1, 10, 50, 90, 99]).tolist(),
    }


def words(point: dict[str, Any]) -> str:
    """A point in a line."""
    errors = " ".join(f"{name} {each['error']:+.0%}{'' if each['within'] else '!'}" for name, each in point["checks"].items())
    regime = "" if point["regime_agrees"] else " REGIME"
    drifts = ", ".join(f"{each:.2f}" for each in point["machine_slower"])
    return f"{point['name']} {point['rate_rps']:g}/s: {errors}{regime} (the machine was slower by {drifts})"


if __name__ == "__main__":
    sys.exit(main())
