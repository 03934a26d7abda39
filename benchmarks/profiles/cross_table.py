"""Does each profile need its own configuration? Every chosen configuration is measured on every workload.

    python benchmarks/profiles/cross_table.py --runs runs --output benchmarks/results/cross_table.json

``--runs`` holds the run folders of ``setpoint tune`` for the four shipped examples (runs/coding-assistant and so on; make
them with ``setpoint tune src/setpoint/examples/NAME.yaml``). Each configuration x workload is measured ``--rounds`` times,
configurations alternating, with a new seed each round, and judged by the workload's own objective: goodput as a fraction
of all requests pooled (Wilson's interval), throughput and latency over blocks of ``BLOCK_S`` seconds of all rounds
(Student's interval). A configuration wins its own workload if its interval lies beyond every other's.
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
from setpoint.record import PhaseMeasures
from setpoint.report.files import machine_facts, read_run
from setpoint.requirement import Objective, Slos, example_names, load_requirement
from setpoint.statistics import proportion_interval

# Student's t, 97.5 %, by degrees of freedom from 1; the last stands for all above.
T_975 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.2)
BLOCK_S = 5.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement: the sustained phase's figures, and tokens/s and E2E P95 of each block of it."""

    measures: PhaseMeasures
    tokens_per_s: list[float]
    e2e_p95_s: list[float]


def score(objective: Objective, rounds: list[Cell]) -> dict[str, Any]:
    """The objective's figure with a 95 % interval."""
    if objective is Objective.MAX_GOODPUT:
        ok, offered = sum(r.measures.ok for r in rounds), sum(r.measures.offered for r in rounds)
        low, high = proportion_interval(ok, offered) or (0.0, 1.0)
        return {"metric": "goodput_fraction", "value": ok / offered, "interval": [low, high], "offered": offered}
    if objective is Objective.MIN_LATENCY:
        return {"metric": "e2e_p95_s", **over_blocks([value for r in rounds for value in r.e2e_p95_s])}
    return {"metric": "output_tokens_per_s", **over_blocks([value for r in rounds for value in r.tokens_per_s])}


def over_blocks(values: list[float]) -> dict[str, Any]:
    mean = statistics.fmean(values)
    if len(values) < 2:
        return {"value": mean, "interval": None, "blocks": len(values)}
    half = T_975[min(len(T_975), len(values) - 1) - 1] * statistics.stdev(values) / sqrt(len(values))
    return {"value": mean, "interval": [mean - half, mean + half], "blocks": len(values)}


def wins(own: dict[str, Any], others: list[dict[str, Any]], *, lower_is_better: bool) -> bool:
    if own["interval"] is None or any(other["interval"] is None for other in others):
        return False
    if lower_is_better:
        return all(own["interval"][1] < other["interval"][0] for other in others)
    return all(own["interval"][0] > other["interval"][1] for other in others)


def measure_cell(name: str, config: ServingConfig, seed: int, schedule: Schedule) -> Cell:
    with as_file(files("setpoint") / "examples" / f"{name}.yaml") as file, TemporaryDirectory() as folder:
        requirement = load_requirement(file)
        profile = requirement.profile.model_copy(update={"burst": None})
        steady = requirement.model_copy(update={"profile": profile, "slo_burst": Slos()})
        options = MeasureOptions(schedule, output=Path(folder), seed=seed, quiet=True)
        report = measure_own(file, steady, config, options)
        rows = read_run(Path(folder)).requests.to_pylist()
    measured = report.candidates[0].measured
    assert measured is not None
    return Cell(measured.sustained, *blocks(rows, schedule))


def blocks(rows: list[dict[str, Any]], schedule: Schedule) -> tuple[list[float], list[float]]:
    """Tokens/s by the time of their arrival, and E2E P95 of the requests intended, in each block of the sustained phase."""
    count = int(schedule.sustained_s // BLOCK_S)
    tokens = [0.0] * count
    waits: list[list[float]] = [[] for _ in range(count)]
    for row in rows:
        times = row["token_times_s"] or ([row["ended_s"]] * (row["output_tokens"] or 0) if row["e2e_s"] is not None else [])
        for time_s in times:
            index = int((time_s - schedule.warmup_s) // BLOCK_S)
            if 0 <= index < count:
                tokens[index] += 1 / BLOCK_S
        index = int((row["intended_s"] - schedule.warmup_s) // BLOCK_S)
        if 0 <= index < count:
            waits[index].append(row["e2e_s"] if row["e2e_s"] is not None else float("inf"))
    p95 = [sorted(each)[min(len(each) - 1, int(0.95 * len(each)))] for each in waits if each]
    return tokens, [value for value in p95 if value != float("inf")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sustained-s", type=float, default=25.0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    schedule = Schedule(warmup_s=3.0, sustained_s=arguments.sustained_s, recovery_s=0.0, drain_s=3.0)
    chosen = {name: read_config(str(arguments.runs / name)) for name in example_names()}
    configs: dict[str, ServingConfig] = {}
    for config in chosen.values():
        configs.setdefault(config.model_dump_json(), config)
    print(f"{len(configs)} different configurations; CPU use before: {psutil.cpu_percent(2)} %", flush=True)
    cells: dict[str, dict[str, list[Cell]]] = {name: {key: [] for key in configs} for name in chosen}
    started_s = time.monotonic()
    for round_number in range(arguments.rounds):
        for name in chosen:
            keys = list(configs) if round_number % 2 else list(reversed(configs))
            for key in keys:
                cells[name][key].append(measure_cell(name, configs[key], 100 + round_number, schedule))
                done = sum(len(rounds) for row in cells.values() for rounds in row.values())
                total = len(chosen) * len(configs) * arguments.rounds
                print(f"[{done}/{total}] {time.monotonic() - started_s:.0f} s", flush=True)
    rows = [row(name, chosen[name], configs, cells[name]) for name in chosen]
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


def row(
    name: str, own: ServingConfig, configs: dict[str, ServingConfig], cells: dict[str, list[Cell]]
) -> dict[str, Any]:
    with as_file(files("setpoint") / "examples" / f"{name}.yaml") as file:
        objective = load_requirement(file).objective
    scores = {label(config): score(objective, cells[key]) for key, config in configs.items()}
    others = [each for key, each in scores.items() if key != label(own)]
    lower = objective is Objective.MIN_LATENCY
    won = wins(scores[label(own)], others, lower_is_better=lower)
    return {"workload": name, "objective": objective, "own": label(own), "wins": won, "scores": scores}


def label(config: ServingConfig) -> str:
    return f"{config.mode}-{config.max_running}-{config.token_budget}"


if __name__ == "__main__":
    main()
