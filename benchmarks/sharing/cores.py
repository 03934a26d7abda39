"""Server, engine and load generator on the same cores: which thread count and priority measure well together?

    python benchmarks/sharing/cores.py --output benchmarks/results/sharing_cores.json

Each setting serves the demo model in a process of its own and gets the same load (4 requests/s, 70 + 48 tokens, streamed),
settings alternating over the rounds. Reported: TTFT, ITL, and the load generator's own lag.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from setpoint.loop.describe import LoadFlags, described_requirement
from setpoint.loop.measuring import load_options, plan_requests
from setpoint.loop.prompts import prompts_for
from setpoint.loop.schedule import Schedule
from setpoint.measure.client import run_load
from setpoint.measure.event_loop import run
from setpoint.measure.probe import discover
from setpoint.measure.result import LoadResult
from setpoint.measure.target import Target
from setpoint.report.files import machine_facts

SETTINGS = {"2 threads": (2, 0), "2 threads, server nice 5": (2, 5), "1 thread": (1, 0)}
FLAGS = LoadFlags(rate="4/s", prompt_tokens=70, output_tokens=48)
READY = "setpoint is serving at "


def one(threads: int, nice: int, seed: int, sustained_s: float) -> LoadResult:
    command = [sys.executable, "-m", "setpoint", "serve", "smollm2-135m", "--port", "0", "--mode", "continuous"]
    command += ["--max-running", "16", "--token-budget", "128", "--threads", str(threads)]
    server = subprocess.Popen(["nice", "-n", str(nice), *command], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = next(line for line in server.stdout if line.startswith(READY)).removeprefix(READY).strip()
        return run(load(Target(url), seed, sustained_s))
    finally:
        server.terminate()
        server.wait(20)


async def load(target: Target, seed: int, sustained_s: float) -> LoadResult:
    found = await discover(target)
    requirement = described_requirement(None, FLAGS)
    schedule = Schedule(warmup_s=3.0, sustained_s=sustained_s, recovery_s=0.0)
    prompts = prompts_for(found.target, token_ids_accepted=True)
    plan = plan_requests(requirement, schedule, seed=seed, make_prompt=prompts)
    return await run_load(found.target, plan, load_options(requirement, schedule))


def figures(result: LoadResult) -> dict[str, float]:
    rows = [row for row in result.outcomes if row.phase == "sustained"]
    gaps = [b - a for row in rows for a, b in zip(row.token_times_s, row.token_times_s[1:], strict=False)]
    firsts = [row.ttft_s for row in rows if row.ttft_s is not None]
    return {
        "ttft_p50_ms": 1e3 * quantile(firsts, 0.5),
        "ttft_p95_ms": 1e3 * quantile(firsts, 0.95),
        "itl_p50_ms": 1e3 * quantile(gaps, 0.5),
        "itl_p99_ms": 1e3 * quantile(gaps, 0.99),
        "send_lag_p99_ms": 1e3 * (result.client.send_lag_p99_s or 0.0),
    }


def quantile(values: list[float], q: float) -> float:
    return float(sorted(values)[min(len(values) - 1, int(q * len(values)))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sustained-s", type=float, default=20.0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    quiet = psutil.cpu_percent(2)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SETTINGS}
    for number in range(arguments.rounds):
        for name, (threads, nice) in SETTINGS.items():
            found[name].append(figures(one(threads, nice, number, arguments.sustained_s)))
    rows: list[dict[str, Any]] = []
    for name, rounds in found.items():
        medians = {key: round(statistics.median(r[key] for r in rounds), 2) for key in rounds[0]}
        rows.append({"setting": name, **medians, "rounds": rounds})
        print(name, medians, flush=True)
    document = {
        "command": "python " + " ".join(sys.argv),
        "machine": machine_facts(),
        "cpu_percent_before": quiet,
        "rows": rows,
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
