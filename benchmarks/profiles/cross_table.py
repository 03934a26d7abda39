"""Does each profile need its own configuration? Every chosen configuration is measured on every workload.

    python benchmarks/profiles/cross_table.py --runs runs --output benchmarks/results/cross_table.json

``--runs`` holds the run folders of ``setpoint tune`` for the four shipped examples (runs/coding-assistant and so on; make
them with ``setpoint tune src/setpoint/examples/NAME.yaml``). Each configuration x workload is measured ``--rounds`` times,
configurations alternating, with a new seed each round, and judged by the workload's own objective. A configuration wins
its own workload if the lower end of its interval is above the upper end of every other's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from importlib.resources import as_file, files
from math import sqrt
from pathlib import Path
from typing import Any

import psutil

from setpoint.loop.configs import read_config
from setpoint.loop.measure import MeasureOptions, measure_own
from setpoint.loop.schedule import Schedule
from setpoint.policy.configuration import ServingConfig
from setpoint.record import PhaseMeasures
from setpoint.report.files import machine_facts
from setpoint.requirement import Objective, example_names, load_requirement
from setpoint.statistics import proportion_interval

# Student's t, 97.5 %, by degrees of freedom.
T_975 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36}


def score(objective: Objective, rounds: list[PhaseMeasures]) -> dict[str, Any]:
    """The objective's figure with a 95 % interval: of pooled requests for goodput, over rounds for throughput."""
    if objective is Objective.MAX_GOODPUT:
        ok, offered = sum(r.ok for r in rounds), sum(r.offered for r in rounds)
        low, high = proportion_interval(ok, offered) or (0.0, 1.0)
        return {"metric": "goodput_fraction", "value": ok / offered, "interval": [low, high], "offered": offered}
    if objective is Objective.MIN_LATENCY:
        values = [r.e2e_s.p95 or float("inf") for r in rounds]
        return {"metric": "e2e_p95_s", **over_rounds(values)}
    return {"metric": "output_tokens_per_s", **over_rounds([r.output_tokens_per_s for r in rounds])}


def over_rounds(values: list[float]) -> dict[str, Any]:
    mean = statistics.fmean(values)
    if len(values) < 2:
        return {"value": mean, "interval": None, "rounds": values}
    half = T_975[min(7, len(values) - 1)] * statistics.stdev(values) / sqrt(len(values))
    return {"value": mean, "interval": [mean - half, mean + half], "rounds": values}


def wins(own: dict[str, Any], others: list[dict[str, Any]], *, lower_is_better: bool) -> bool:
    if own["interval"] is None or any(other["interval"] is None for other in others):
        return False
    if lower_is_better:
        return all(own["interval"][1] < other["interval"][0] for other in others)
    return all(own["interval"][0] > other["interval"][1] for other in others)


def measure_cell(name: str, config: ServingConfig, seed: int, schedule: Schedule) -> PhaseMeasures:
    with as_file(files("setpoint") / "examples" / f"{name}.yaml") as file:
        requirement = load_requirement(file)
        requirement = requirement.model_copy(update={"profile": requirement.profile.model_copy(update={"burst": None})})
        options = MeasureOptions(schedule, output=None, seed=seed, quiet=True)
        report = measure_own(file, requirement, config, options)
    measured = report.candidates[0].measured
    assert measured is not None
    return measured.sustained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sustained-s", type=float, default=40.0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    schedule = Schedule(warmup_s=4.0, sustained_s=arguments.sustained_s, drain_s=10.0)
    chosen = {name: read_config(str(arguments.runs / name)) for name in example_names()}
    configs: dict[str, ServingConfig] = {}
    for config in chosen.values():
        configs.setdefault(config.model_dump_json(), config)
    print(f"{len(configs)} different configurations; CPU use before: {psutil.cpu_percent(2)} %", flush=True)
    cells: dict[str, dict[str, list[PhaseMeasures]]] = {name: {key: [] for key in configs} for name in chosen}
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
    name: str, own: ServingConfig, configs: dict[str, ServingConfig], cells: dict[str, list[PhaseMeasures]]
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
