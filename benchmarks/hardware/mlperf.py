"""Predictions against MLPerf Inference server rows: percentiles under Poisson arrivals, by the simulator.

    python benchmarks/hardware/mlperf.py TABLE.csv

Nothing is fitted on the table. What a row does not say is assumed, and printed with it: how many devices share a layer
(``TENSOR_PARALLEL``), at most ``MOST_RUNNING`` requests and ``BUDGET_TOKENS`` tokens a step, the share of memory of an engine
that is set up for a benchmark, and Open-Orca's lengths as log-normal with the means and medians of ``PROMPT`` and ``OUTPUT``,
the latter brought to the row's own mean, its tokens over its completed requests. Each replica gets its share of the arrivals,
so one is simulated.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from setpoint.hardware.accelerator import accelerator
from setpoint.hardware.deployment import Deployment, kv_capacity_tokens
from setpoint.hardware.measurements import MEMORY_SHARE
from setpoint.hardware.model_facts import model_facts
from setpoint.hardware.step_time import step_timer
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.record import Phase
from setpoint.simulate.load import Load, PhaseOfLoad
from setpoint.simulate.run import Flavour, SimulatedSystem, simulate

# (mean, median, most) tokens.
PROMPT, OUTPUT = (294.0, 245.0, 1024), (290.0, 248.0, 1024)
TENSOR_PARALLEL = {("H100-SXM-80GB", "llama2-70b"): 2}
# By Little's law the table's own rates and latencies have up to 1,424 requests under way on one device.
MOST_RUNNING, BUDGET_TOKENS, BLOCK_TOKENS = 2048, 8192, 16
WARM_UP_S, SUSTAINED_S = 120.0, 240.0
BARS = 0.2


def lengths(
    random: np.random.Generator, shape: tuple[float, float, int], count: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Log-normal token counts with that mean and median, cut at the most."""
    mean, median, most = shape
    spread = np.sqrt(2 * np.log(mean / median))
    return np.clip(np.round(np.exp(random.normal(np.log(median), spread, count))), 1, most).astype(np.int64)


def predicted(row: dict[str, str]) -> tuple[dict[str, float], str]:
    """TTFT and TPOT percentiles in milliseconds, and what was assumed."""
    model, device = model_facts(row["model"]), accelerator(row["accelerator"].lower().replace("gh200-144gb", "h200"))
    tensor = next(
        (n for (name, start), n in TENSOR_PARALLEL.items() if name == row["accelerator"] and row["model"].startswith(start)), 1
    )
    replicas = max(1, int(row["n_accel"]) // tensor)
    engine = "vllm" if "vllm" in row["software"].lower() else "trtllm"
    deployment = Deployment(model, device, tensor, engine, row["precision"], "fp8")
    timer = step_timer(deployment)
    random = np.random.default_rng(0)
    rate_rps, end_s = float(row["scheduled_qps"]) / replicas, WARM_UP_S + SUSTAINED_S
    sent_s = np.sort(random.uniform(0, end_s, random.poisson(rate_rps * end_s)))
    mean_output = float(row["tokens_per_s"]) / float(row["completed_qps"])
    own = (mean_output, OUTPUT[1] / OUTPUT[0] * mean_output, OUTPUT[2])
    prompt, output = (lengths(random, shape, len(sent_s)) for shape in (PROMPT, own))
    phases = (PhaseOfLoad(Phase.WARMUP, 0.0, WARM_UP_S), PhaseOfLoad(Phase.SUSTAINED, WARM_UP_S, end_s))
    load = Load(sent_s, prompt, output, output, phases, (sent_s >= WARM_UP_S).astype(np.int64))
    configuration = ServingConfig(
        mode=BatchingMode.CONTINUOUS, max_running=MOST_RUNNING, token_budget=BUDGET_TOKENS, max_waiting=1_000_000
    )
    blocks = kv_capacity_tokens(deployment, memory_share=MEMORY_SHARE) // BLOCK_TOKENS
    done = simulate(load, SimulatedSystem(timer, blocks, BLOCK_TOKENS, configuration, flavour=Flavour.VLLM))
    kept = load.phase == 1
    first_s, last_s = done.ledger.first_s[kept], done.ledger.last_s[kept]
    ttft_ms = (first_s - load.sent_s[kept]) * 1e3
    tpot_ms = (last_s - first_s) / np.maximum(output[kept] - 1, 1) * 1e3
    found = {
        f"{name}_p{percent}_ms": float(np.nanpercentile(values, percent))
        for name, values in (("ttft", ttft_ms), ("tpot", tpot_ms))
        for percent in (50, 99)
    }
    return found, f"{replicas} x {device.name} x{tensor}, {engine}, {timer.source}, {rate_rps:.1f} requests/s each"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path)
    asked = parser.parse_args()
    with asked.table.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["ttft_p50_ms"]]
    within = total = 0
    for row in rows:
        found, assumed = predicted(row)
        print(f"{row['system']} {row['model']} {row['precision']} ({assumed})")
        for name, value in found.items():
            true = float(row[name])
            total, within = total + 1, within + (abs(value / true - 1) <= BARS)
            print(f"    {name:12s} predicted {value:9.1f}  measured {true:9.1f}  {value / true - 1:+.0%}", flush=True)
    print(f"within {BARS:.0%}: {within} of {total}")


if __name__ == "__main__":
    main()
