"""How long a plan takes: five kinds of GPU x three parallelisms x modes x budgets, from nothing to the files.

Usage: python benchmarks/plan/plan_speed.py [--processes N]. Prints one JSON line a requirement: seconds, CPU seconds of all
processes, simulations, what was chosen. The bar is 30 s on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HARDWARE = "a100-80,h100-sxm,h200,mi300x,l40s"
PARALLEL = "1,2,4"
REQUIREMENTS = {
    "chat-p95": """\
name: chat-p95
model: llama-3.1-8b
profile:
  prompt_tokens: 500
  output_tokens: 200
  arrival: {rate: 40/s}
slo:
  ttft: {p95: 500ms}
  itl: {p95: 50ms}
""",
    "chat-p99": """\
name: chat-p99
model: llama-3.1-8b
profile:
  prompt_tokens: {median: 400, p95: 1600, max: 4000}
  output_tokens: {median: 150, p95: 400, max: 800}
  arrival: {rate: 40/s}
slo:
  ttft: {p99: 1s}
  itl: {p99: 80ms}
  goodput_fraction: 95%
""",
    "large-p95": """\
name: large-p95
model: llama-3.1-70b
profile:
  prompt_tokens: 512
  output_tokens: 512
  arrival: {rate: 10/s}
slo:
  ttft: {p95: 1s}
  tpot: {p95: 60ms}
""",
}


def main() -> None:
    """Run each requirement once in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", default="2")
    parser.add_argument("--only", choices=sorted(REQUIREMENTS))
    options = parser.parse_args()
    for name, text in REQUIREMENTS.items():
        if options.only in (None, name):
            print(json.dumps(run(name, text, options.processes)), flush=True)


def run(name: str, text: str, processes: str) -> dict[str, object]:
    """One plan and what it took."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirement.yaml"
        file.write_text(text, encoding="utf-8")
        output = Path(folder) / "plan"
        command = [sys.executable, "-m", "setpoint", "plan", str(file), "--hardware", HARDWARE, "--tensor-parallel", PARALLEL]
        command += ["--processes", processes, "--output", str(output), "--json"]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took_s = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode not in (0, 1, 3):
            raise SystemExit(f"{name}: exit code {done.returncode}: {done.stderr.strip()}")
        plan = json.loads((output / "plan.json").read_text(encoding="utf-8"))
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {
            "requirement": name,
            "seconds": round(took_s, 1),
            "cpu_s": round(cpu_s, 1),
            "processes": int(processes),
            "cores": os.cpu_count(),
            "simulations": plan["simulations"],
            "standing": plan["standing"],
            "chosen": plan["chosen"],
        }


if __name__ == "__main__":
    main()
