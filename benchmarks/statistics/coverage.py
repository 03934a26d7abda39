"""Do intervals cover, are they narrow, and are verdicts at the limit wrong no more often than they say? By simulation.

    python benchmarks/statistics/coverage.py --runs 1000 --output benchmarks/results/interval_coverage.json

For every process of ``tests/statistics/statistics_processes.py``, every sample size and P50, P90 and P99 it counts over the
runs: how often ``percentile_interval`` gave two ends (``given``), how often those covered the truth, how often they were
wrong of all runs, and their mean width over the width of the central 95 % of the percentile itself over the runs, which is
what somebody who knew the distribution and the dependence could state (``width``). And with the limit exactly at the true
percentile, how often ``side_of_limit`` claimed that it is met and that it is missed: 2.5 % each is what it promises.

The process ``episodes`` is summed up apart. Its slow tenth comes in rare episodes; a run without one looks like a run of
a process that has none, and no method can tell from the samples alone.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "statistics"))

from statistics_processes import PROCESSES, Process

from setpoint.report.files import machine_facts
from setpoint.statistics import FloatArray, Side, percentile_interval, side_of_limit

SIZES = (100, 300, 1_000, 3_000, 10_000, 20_000)
PERCENTILES = (50.0, 90.0, 99.0)
LEAST_BEYOND = 1.0
UNSEEN = "episodes"
CHUNK_VALUES = 4_000_000


@dataclass
class Cell:
    """Counts of one process, size and percentile."""

    process: str
    n: int
    p: float
    runs: int = 0
    given: int = 0
    low_wrong: int = 0
    high_wrong: int = 0
    width: float = 0.0
    within_wrong: int = 0
    beyond_wrong: int = 0

    def summary(self, ideal: float) -> dict[str, object]:
        """The cell as a row of the result."""
        wrong = self.low_wrong + self.high_wrong
        return {
            "process": self.process,
            "n": self.n,
            "p": self.p,
            "given": round(self.given / self.runs, 4),
            "coverage_of_given": round(1.0 - wrong / self.given, 4) if self.given else None,
            "wrong_of_all": round(wrong / self.runs, 4),
            "width_over_ideal": round(self.width / self.given / ideal, 3) if self.given and ideal > 0 else None,
            "met_at_the_limit": round(self.within_wrong / self.runs, 4),
            "missed_at_the_limit": round(self.beyond_wrong / self.runs, 4),
        }


def measure(process: Process, n: int, runs: int, seed: int) -> list[dict[str, object]]:
    """All percentiles of one process and size."""
    rng = np.random.default_rng((seed, zlib.crc32(process.name.encode()), n))
    cells = {p: Cell(process.name, n, p) for p in PERCENTILES if n * (1.0 - p / 100.0) >= LEAST_BEYOND}
    points: dict[float, list[float]] = {p: [] for p in cells}
    for _ in range(-(-runs // max(1, CHUNK_VALUES // n))):
        count = min(runs - cells[50.0].runs, max(1, CHUNK_VALUES // n))
        for series in process.draw(rng, count, n):
            for p, cell in cells.items():
                points[p].append(_look(cell, series, p, process.truth(p)))
    return [cell.summary(float(np.quantile(points[p], 0.975) - np.quantile(points[p], 0.025))) for p, cell in cells.items()]


def _look(cell: Cell, series: FloatArray, p: float, truth: float) -> float:
    """Count one run; returns its percentile."""
    cell.runs += 1
    interval = percentile_interval(series, p)
    if interval is not None and all(map(math.isfinite, interval)):
        margin = 1e-9 * abs(truth)
        cell.given += 1
        cell.low_wrong += truth < interval[0] - margin
        cell.high_wrong += truth > interval[1] + margin
        cell.width += interval[1] - interval[0]
    side = side_of_limit(series, p, truth)
    cell.within_wrong += side is Side.WITHIN
    cell.beyond_wrong += side is Side.BEYOND
    rank = math.ceil(len(series) * p / 100.0 - 1e-9) - 1
    return float(np.partition(series, rank)[rank])


def verdict(rows: list[dict[str, object]], runs: int) -> dict[str, object]:
    """What the rows come to: cells where an interval is usual, and the worst of them; cells where it is refused."""
    noise = 2.0 * math.sqrt(0.05 * 0.95 / runs)
    usual = [row for row in rows if float(str(row["given"])) >= 0.5]
    covered = [float(str(row["coverage_of_given"])) for row in usual]
    widths = [float(str(row["width_over_ideal"])) for row in usual if row["width_over_ideal"] is not None]
    wrong = [float(str(row["wrong_of_all"])) for row in rows]
    met, missed = ([float(str(row[key])) for row in rows] for key in ("met_at_the_limit", "missed_at_the_limit"))
    return {
        "cells": len(rows),
        "cells_where_half_the_runs_or_more_get_an_interval": len(usual),
        "of_them_covering_93_percent_or_more": sum(value >= 0.93 for value in covered),
        "least_coverage": min(covered, default=None),
        "mean_coverage": round(float(np.mean(covered)), 4) if covered else None,
        "of_them_at_most_1.5_times_as_wide_as_ideal": sum(width <= 1.5 for width in widths),
        "widest_over_ideal": max(widths, default=None),
        "mean_width_over_ideal": round(float(np.mean(widths)), 3) if widths else None,
        "most_wrong_of_all_runs": max(wrong),
        "cells_wrong_in_more_than_7_percent": sum(value > 0.07 for value in wrong),
        "most_met_at_the_limit": max(met),
        "most_missed_at_the_limit": max(missed),
        "two_standard_errors_of_a_coverage": round(noise, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--process", action="append", choices=sorted(PROCESSES))
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    started_s = time.monotonic()
    for name in arguments.process or PROCESSES:
        for n in arguments.sizes:
            rows += measure(PROCESSES[name], n, arguments.runs, arguments.seed)
            print(f"{time.monotonic() - started_s:6.0f} s  {name}, n = {n}", file=sys.stderr)
    groups = {
        "summary": [row for row in rows if row["process"] != UNSEEN],
        "summary_of_episodes": [row for row in rows if row["process"] == UNSEEN],
    }
    head_of: dict[str, object] = {"command": "python benchmarks/statistics/coverage.py " + shlex.join(sys.argv[1:])}
    head_of |= {"machine": machine_facts(), "runs": arguments.runs, "seed": arguments.seed}
    head_of |= {name: verdict(group, arguments.runs) for name, group in groups.items() if group}
    head = json.dumps(head_of, indent=2)
    print(head)
    if arguments.output is not None:
        lines = ",\n".join("    " + json.dumps(row) for row in rows)
        arguments.output.write_text(head[:-2] + ',\n  "rows": [\n' + lines + "\n  ]\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
