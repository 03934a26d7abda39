"""Does each profile need its own configuration? Every chosen configuration is measured on every workload.

    python benchmarks/profiles/cross_table.py --runs runs --output benchmarks/results/cross_table.json

``--runs`` holds the run folders of ``setpoint tune`` for the four shipped examples (runs/coding-assistant and so on; make
them with ``setpoint tune src/setpoint/examples/NAME.yaml``). Each configuration x workload is measured ``--rounds`` times,
configurations alternating, with a new seed each round, and judged by the workload's own objective in blocks of ``BLOCK_S``
seconds. In a round every configuration gets the same requests at the same times, so blocks are compared pairwise: a
configuration wins its own workload if the 95 % interval (Student's) of its mean gain over every other excludes zero.
Throughput is what the engine's steps emitted: an answer that is not streamed shows its tokens only at its end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from importlib.resources import as_file, files
from math import sqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from setpoint.loop.configs import read_config
from setpoint.loop.measure import MeasureOptions, measure_own
from setpoint.loop.schedule import Schedule
from setpoint.policy.configuration import ServingConfig
from setpoint.report.files import Run, machine_facts, read_run
from setpoint.requirement import Objective, Slos, example_names, load_requirement

# Student's t, 97.5 %, by degrees of freedom from 1; the last stands for all above.
T_975 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.2)
BLOCK_S = 5.0


METRICS = {Objective.MAX_GOODPUT: "goodput_fraction", Objective.MIN_LATENCY: "e2e_p95_s"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement: the objective's figure in each block of the sustained phase, and how the requests ended."""

    blocks: list[float]
    offered: int
    ok: int


def spread_of(values: list[float]) -> dict[str, Any]:
    """Mean and Student's 95 % interval over blocks."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return {"value": mean, "interval": None, "blocks": len(values)}
    half = T_975[min(len(T_975), len(values) - 1) - 1] * statistics.stdev(values) / sqrt(len(values))
    return {"value": mean, "interval": [mean - half, mean + half], "blocks": len(values)}


def gain(own: list[Cell], other: list[Cell], *, lower_is_better: bool) -> dict[str, Any]:
    """The mean of ``own`` less ``other`` over paired blocks; positive is better."""
    sign = -1.0 if lower_is_better else 1.0
    pairs = [sign * (a - b) for x, y in zip(own, other, strict=True) for a, b in zip(x.blocks, y.blocks, strict=True)]
    return spread_of(pairs)


def measure_cell(name: str, config: ServingConfig, seed: int, schedule: Schedule) -> Cell:
    with as_file(files("setpoint") / "examples" / f"{name}.yaml") as file, TemporaryDirectory() as folder:
        requirement = load_requirement(file)
        profile = requirement.profile.model_copy(update={"burst": None})
        steady = requirement.model_copy(update={"profile": profile, "slo_burst": Slos()})
        options = MeasureOptions(schedule, output=Path(folder), seed=seed, quiet=True)
        report = measure_own(file, steady, config, options)
        measured = report.candidates[0].measured
        run = read_run(Path(folder))
    assert measured is not None
    figures = measured.sustained
    return Cell(block_figures(requirement.objective, run, schedule), figures.offered, figures.ok)


def block_figures(objective: Objective, run: Run, schedule: Schedule) -> list[float]:
    """The objective's figure in each block of the sustained phase."""
    count = int(schedule.sustained_s // BLOCK_S)
    if objective not in METRICS:
        assert run.steps is not None
        emitted = [0.0] * count
        for step in run.steps.select(["end_s", "decode_tokens"]).to_pylist():
            index = int((step["end_s"] - schedule.warmup_s) // BLOCK_S)
            if 0 <= index < count:
                emitted[index] += step["decode_tokens"] / BLOCK_S
        return emitted
    blocks: list[list[float]] = [[] for _ in range(count)]
    for row in run.requests.to_pylist():
        index = int((row["intended_s"] - schedule.warmup_s) // BLOCK_S)
        if 0 <= index < count:
            waited_s = row["e2e_s"] if row["e2e_s"] is not None else schedule.sustained_s
            blocks[index].append(float(row["request_class"] == "ok") if objective is Objective.MAX_GOODPUT else waited_s)
    if objective is Objective.MAX_GOODPUT:
        return [statistics.fmean(each) if each else 1.0 for each in blocks]
    return [sorted(each)[min(len(each) - 1, int(0.95 * len(each)))] if each else 0.0 for each in blocks]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sustained-s", type=float, default=25.0)
    parser.add_argument("--seed", type=int, default=100, help="of the first round's arrivals; each round takes the next")
    parser.add_argument("--only", action="append", choices=example_names(), help="measure only this workload's row")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    schedule = Schedule(warmup_s=3.0, sustained_s=arguments.sustained_s, recovery_s=0.0, drain_s=3.0)
    chosen = {name: read_config(str(arguments.runs / name)) for name in example_names()}
    configs: dict[str, ServingConfig] = {}
    for config in chosen.values():
        configs.setdefault(config.model_dump_json(), config)
    print(f"{len(configs)} different configurations; CPU use before: {psutil.cpu_percent(2)} %", flush=True)
    cells: dict[str, dict[str, list[Cell]]] = {name: {key: [] for key in configs} for name in arguments.only or chosen}
    started_s = time.monotonic()
    for round_number in range(arguments.rounds):
        for name in cells:
            keys = list(configs) if round_number % 2 else list(reversed(configs))
            for key in keys:
                cells[name][key].append(measure_cell(name, configs[key], arguments.seed + round_number, schedule))
                done = sum(len(rounds) for row in cells.values() for rounds in row.values())
                total = len(cells) * len(configs) * arguments.rounds
                print(f"[{done}/{total}] {time.monotonic() - started_s:.0f} s", flush=True)
    rows = [row(name, chosen[name], configs, cells[name]) for name in cells]
    for each in rows:
        print(json.dumps(each))
    document = {
        "command": "python " + " ".join(sys.argv),
        "machine": machine_facts(),
        "rounds": arguments.rounds,
        "sustained_s": arguments.sustained_s,
        "rows": rows,
        "wins_own_workload": sum(each["wins"] for each in rows),
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def row(name: str, own: ServingConfig, configs: dict[str, ServingConfig], cells: dict[str, list[Cell]]) -> dict[str, Any]:
    with as_file(files("setpoint") / "examples" / f"{name}.yaml") as file:
        objective = load_requirement(file).objective
    mine = cells[own.model_dump_json()]
    scores, gains = {}, {}
    for key, config in configs.items():
        rounds = cells[key]
        score = spread_of([value for each in rounds for value in each.blocks])
        scores[label(config)] = {**score, "offered": sum(r.offered for r in rounds), "ok": sum(r.ok for r in rounds)}
        if key != own.model_dump_json():
            gains[label(config)] = gain(mine, rounds, lower_is_better=objective is Objective.MIN_LATENCY)
    return {
        "workload": name,
        "metric": METRICS.get(objective, "decode_tokens_per_s"),
        "own": label(own),
        "wins": all(each["interval"] is not None and each["interval"][0] > 0 for each in gains.values()),
        "scores": scores,
        "gain_of_own_over": gains,
    }


def label(config: ServingConfig) -> str:
    return f"{config.mode}-{config.max_running}-{config.token_budget}"


if __name__ == "__main__":
    main()
