"""What kernels of their own for small steps bring: steps of many shapes with and without them, in turn (docs/decisions/0096).

    python benchmarks/engine/small_steps.py --output benchmarks/results/engine_small_steps.json

The executor alone, without a server. A shape is decodes, draft tokens of each, and tokens of one prompt beside them; every
side runs each shape ``STEPS`` times in a row, after two that are not counted, and the sides take turns ``ROUNDS`` times.
``off``: the device's own precision for all steps; ``small``: small kernels for all steps, to see where both take as long;
``both``: as the engine chooses by the number of tokens. About 3 minutes; quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from shapes import sequences

from setpoint.engine.batch import Batch, BatchItem, make_batch
from setpoint.engine.models import DEMO_MODEL, resolve_model
from setpoint.engine.openvino.executor import ExecutorOptions, OpenVinoExecutor
from setpoint.engine.openvino.small_steps import EIGHT_BIT, SMALL_STEP_TOKENS
from setpoint.report.files import machine_facts

ROUNDS, STEPS, AT = 5, 5, 300
# (decodes, draft tokens of each, prompt tokens)
SHAPES = (
    *((decodes, 0, 0) for decodes in (1, 2, 4, 8, 11)),
    *((1, drafted, 0) for drafted in (3, 7)),
    (4, 3, 0),
    *((0, 0, prompt) for prompt in (16, 24, 32, 40, 48, 64, 96, 128, 256)),
    *((4, 0, prompt) for prompt in (16, 32, 96)),
)


def step(shape: tuple[int, int, int], block_tokens: int) -> Batch:
    """A step of that shape."""
    decodes, drafted, prompt = shape
    of = sequences(block_tokens)
    items = [BatchItem(each, AT, 1 + drafted, True) for each in of[:decodes]]
    return make_batch([*items, BatchItem(of[-1], 0, prompt, True)] if prompt else items)


def timed(engine: OpenVinoExecutor, batch: Batch) -> Iterator[float]:
    """Milliseconds of steps in a row, the first two left out."""
    for number in range(STEPS + 2):
        began_s = time.perf_counter()
        engine.collect(engine.submit(batch))
        if number > 1:
            yield 1e3 * (time.perf_counter() - began_s)


def engines() -> dict[str, OpenVinoExecutor]:
    """The sides, compiled."""
    folder = resolve_model(DEMO_MODEL).folder
    options = ExecutorOptions(kv_cache_tokens=8192, small_steps=False)
    off = OpenVinoExecutor(folder, options, time.perf_counter)
    both = OpenVinoExecutor(folder, ExecutorOptions(kv_cache_tokens=8192, small_steps=True), time.perf_counter)
    small = OpenVinoExecutor(folder, ExecutorOptions(kv_cache_tokens=8192, small_steps=True), time.perf_counter)
    small._large = small._small
    return {"off": off, "small": small, "both": both}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    output = parser.parse_args().output
    quiet = psutil.cpu_percent(2)
    sides = engines()
    batches = {shape: step(shape, sides["off"].block_tokens) for shape in SHAPES}
    found: dict[tuple[int, int, int], dict[str, list[float]]] = {shape: {name: [] for name in sides} for shape in SHAPES}
    for number in range(ROUNDS):
        for shape, batch in batches.items():
            for name in sorted(sides, reverse=bool(number % 2)):
                found[shape][name].append(statistics.median(timed(sides[name], batch)))
        print(f"round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
    rows: list[dict[str, Any]] = []
    for (decodes, drafted, prompt), times in found.items():
        row = {"decodes": decodes, "drafted_each": drafted, "prompt_tokens": prompt, "tokens": decodes * (1 + drafted) + prompt}
        rows.append({**row, **{f"{name}_ms": times[name] for name in sides}})
        medians = {name: statistics.median(values) for name, values in times.items()}
        words = "  ".join(f"{name} {value:6.1f}" for name, value in medians.items())
        ratio = medians["off"] / medians["both"]
        print(f"{decodes:2} decodes, {drafted} drafted each, {prompt:3} of a prompt: {words} ms  {ratio:.2f}x")
    if output is not None:
        about = {"command": "python benchmarks/engine/small_steps.py", "machine": machine_facts(), "cpu_percent_before": quiet}
        settings = {"rounds": ROUNDS, "steps": STEPS, "small_step_tokens": SMALL_STEP_TOKENS, "properties": EIGHT_BIT}
        output.write_text(json.dumps({**about, **settings, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
