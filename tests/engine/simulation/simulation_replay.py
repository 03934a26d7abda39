"""Run worlds by their seeds: one to see a failure again, or many, for as long as one likes.

    .venv/bin/python tests/engine/simulation/simulation_replay.py SEED [--seeds N] [--steps N] [--processes N] [--twice]

Prints one line a world and exits 1 at the first that fails, with the line that replays it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from simulation_run import STEPS, Result, SimulationFailed, run_seed


def words(result: Result) -> str:
    """A result in a line."""
    counts = " ".join(f"{name}={count}" for name, count in result.counts.items())
    name = f"seed {result.seed} {result.mode} steps={result.steps}"
    return f"{name} {counts} patience={result.worst_patience:.2f} {result.digest}"


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="Run simulated worlds by seed.")
    parser.add_argument("seed", type=int, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, counting up")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps in each world")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--twice", action="store_true", help="run each world twice and compare the digests")
    told = parser.parse_args()
    began_s, steps, worst = time.monotonic(), 0, 0.0
    seeds = range(told.seed, told.seed + told.seeds)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(told.processes, mp_context=context) as pool:
        each = [pool.submit(run_seed, seed, told.steps) for seed in seeds]
        again = [pool.submit(run_seed, seed, told.steps) for seed in seeds] if told.twice else each
        try:
            for first, second in zip(each, again, strict=True):
                result = first.result()
                print(words(result), flush=True)
                steps += result.steps
                worst = max(worst, result.worst_patience)
                if second.result().digest != result.digest:
                    print(f"seed {result.seed} decides differently when it is run again")
                    return 1
        except SimulationFailed as failure:
            print(failure)
            pool.shutdown(cancel_futures=True)
            return 1
    seconds = time.monotonic() - began_s
    print(f"{len(seeds)} worlds, {steps} steps in {seconds:.0f} s, {1e6 * seconds / steps:.0f} us a step, patience {worst:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
