"""What it costs in memory and time to keep few or many kernels for shapes of steps (docs/decisions/0091).

    python benchmarks/engine/shapes.py --output benchmarks/results/engine_shapes.json

The executor alone, without a server: steps with one to eleven decodes and, in half of them, a part of a prompt of random
length, the same steps on every side. A side is how many kernels OpenVINO's CPU device keeps and how many oneDNN does, each in a
process of its own; sides take turns. About 4 minutes; quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from setpoint.engine.batch import Batch, BatchItem, make_batch
from setpoint.engine.models import DEMO_MODEL, resolve_model
from setpoint.engine.openvino import executor
from setpoint.engine.openvino.bounds import KERNELS_KEPT
from setpoint.engine.request import GenerationRequest
from setpoint.engine.sequence import Sequence
from setpoint.report.files import machine_facts

STEPS, EVERY, ROUNDS = 600, 100, 2
DECODES_MAX, PART_MAX, CONTEXT, KNOWN_IDS = 11, 300, 400, 1_000
OURS, THEIRS = (KERNELS_KEPT, KERNELS_KEPT), (5_000, 1_024)
MIB = 2**20


def sequences(block_tokens: int) -> list[Sequence]:
    """Prompts of ``CONTEXT`` tokens, each with blocks of its own."""
    each = CONTEXT // block_tokens + 1
    found = []
    for number in range(DECODES_MAX + 1):
        ids = tuple(random.Random(number).randrange(KNOWN_IDS) for _ in range(CONTEXT))
        found.append(Sequence(number, GenerationRequest(prompt_ids=ids), arrived_s=0.0, max_tokens=1))
        found[-1].blocks = list(range(number * each, (number + 1) * each))
    return found


def step(rng: random.Random, of: list[Sequence]) -> Batch:
    """A random step: decodes, and by chance the first tokens of one more prompt."""
    *decoding, other = rng.sample(of, rng.randint(2, DECODES_MAX + 1))
    items = [BatchItem(each, rng.randrange(50, CONTEXT - 1), 1, True) for each in decoding]
    if rng.random() < 0.5:
        items.append(BatchItem(other, 0, rng.randint(2, PART_MAX), rng.random() < 0.3))
    return make_batch(items)


def side(kept: tuple[int, int]) -> dict[str, Any]:
    """All steps with ``kept`` kernels, OpenVINO's and oneDNN's (the environment has that): resident MiB every ``EVERY`` steps,
    and the seconds that the steps took."""
    executor.KERNELS_KEPT = kept[0]
    options = executor.ExecutorOptions(kv_cache_tokens=16_384)
    engine = executor.OpenVinoExecutor(resolve_model(DEMO_MODEL).folder, options, time.monotonic)
    of, rng, process = sequences(engine.block_tokens), random.Random(0), psutil.Process()
    resident_mib, steps_s = [], 0.0
    for number in range(STEPS + 1):
        if number % EVERY == 0:
            resident_mib.append(round(process.memory_info().rss / MIB, 1))
        output = engine.collect(engine.submit(step(rng, of)))
        steps_s += output.end_s - output.start_s
    return {"kept": kept, "resident_mib": resident_mib, "steps_s": round(steps_s, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="where to keep the result")
    parser.add_argument("--side", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side is not None:
        print(json.dumps(side(tuple(given.side))))
        return
    busy_percent = psutil.cpu_percent(interval=1.0)
    print(f"CPU use before: {busy_percent:.0f} %; {STEPS} steps a side, {ROUNDS} rounds", flush=True)
    rows = []
    for kept in (OURS, THEIRS) * ROUNDS:
        command = [sys.executable, __file__, "--side", *map(str, kept)]
        environment = os.environ | {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(kept[1])}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{kept} kept: {rows[-1]['resident_mib']} MiB, {rows[-1]['steps_s']} s", flush=True)
    few, many = ([row["steps_s"] for row in rows if row["kept"] == list(kept)] for kept in (OURS, THEIRS))
    ratio = statistics.median(one / other for one, other in zip(few, many, strict=True))
    print(f"time with {OURS} over time with {THEIRS}: {ratio:.3f}")
    facts = {
        "machine": machine_facts(),
        "command": "python benchmarks/engine/shapes.py",
        "cpu_use_before_percent": busy_percent,
    }
    if given.output:
        given.output.write_text(json.dumps({**facts, "steps": STEPS, "rows": rows, "time_ratio": ratio}, indent=1) + "\n")


if __name__ == "__main__":
    main()
