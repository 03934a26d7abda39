"""CPU seconds of one core for a simulation: 512 + 512 tokens, Llama-3.1-8B on one H100, Poisson arrivals, by mode.

    .venv/bin/python benchmarks/simulate/speed.py --requests 10000
    .venv/bin/python benchmarks/simulate/speed.py --requests 1000000 --modes continuous

``continuous`` is vLLM's default configuration (8192 tokens, 1024 requests). Prints one JSON line a mode, with the memory the
process has had at most; the time does not include imports.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np

from setpoint.hardware.accelerator import accelerator
from setpoint.hardware.deployment import Deployment, kv_capacity_tokens
from setpoint.hardware.model_facts import model_facts
from setpoint.hardware.step_time import step_timer
from setpoint.policy.configuration import ServingConfig
from setpoint.policy.views import RequestLimits
from setpoint.record import Phase
from setpoint.simulate.load import Load, PhaseOfLoad
from setpoint.simulate.run import SimulatedSystem, simulate
from setpoint.simulate.sequences import Kind

BLOCK_TOKENS = 16
LIMITS = RequestLimits(ttft_s=0.5, itl_s=0.05)
UNBOUNDED = 1 << 31


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="Speed of the simulator.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=10.0, help="requests per second")
    parser.add_argument("--modes", default="continuous,setpoint,static,immediate", help="with commas")
    told = parser.parse_args()
    deployment = Deployment(model_facts("llama-3.1-8b"), accelerator("h100-sxm"), 1, "vllm", "bf16")
    sent_s = np.cumsum(np.random.default_rng(0).exponential(1 / told.rate, told.requests))
    tokens = np.full(told.requests, 512)
    phases = (PhaseOfLoad(Phase.SUSTAINED, 0.0, float(sent_s[-1])),)
    for mode in told.modes.split(","):
        limits = LIMITS if mode == "setpoint" else RequestLimits()
        kinds = (Kind(limits=limits),)
        load = Load(sent_s, tokens, tokens, tokens, phases, np.zeros(told.requests, dtype=np.int8), kinds)
        running = 64 if mode == "static" else 1024
        config = ServingConfig(mode=mode, max_running=running, token_budget=8192, max_waiting=UNBOUNDED)
        blocks = kv_capacity_tokens(deployment) // BLOCK_TOKENS
        began_s = time.process_time()
        done = simulate(load, SimulatedSystem(step_timer(deployment), blocks, BLOCK_TOKENS, config))
        took_s = time.process_time() - began_s
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        row = {"mode": mode, "requests": told.requests, "cpu_s": round(took_s, 3), "steps": done.steps}
        print(
            json.dumps({**row, "us_a_request": round(1e6 * took_s / told.requests, 1), "peak_mb": round(peak_mb)}), flush=True
        )


if __name__ == "__main__":
    main()
