"""How near the true knee the search lands: hundreds of searches on simulated servers whose knee is known.

    python benchmarks/knee/accuracy.py --output benchmarks/results/knee_accuracy.json
    python benchmarks/knee/accuracy.py --searches 200 --only "processor sharing"

The servers share no code with the search (tests/loop/knee/knee_servers.py). The true knee is that of an endless run: exact
for FIFO, otherwise by bisection on runs of ``--truth-requests`` requests. Each search starts from a guess that is off by a
random factor between 1/8 and 4, and sees only arrivals, first tokens and ends; sizes are unknown to it unless the name of
the case says so.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from setpoint.loop.knee.probes import goodput
from setpoint.report.files import machine_facts

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "loop" / "knee"))

from knee_searching import EXPONENTIAL, World, error_of, play  # noqa: E402
from knee_servers import BatchServer, Replicas, Server, SharingServer, ShortestFirst, Sizes, fifo_knee_rps, true_knee_rps  # noqa: E402

WITHIN = 0.05


@dataclass(frozen=True, slots=True)
class Case:
    """One server and one limit; ``knee_rps`` where it is known exactly."""

    name: str
    server: Server
    share: float
    e2e_s: float = np.inf
    ttft_s: float = np.inf
    cv: float = 1.0
    knee_rps: float | None = None

    def world(self, truth_requests: int) -> World:
        """With its true knee."""
        knee_rps = self.knee_rps or true_knee_rps(
            self.server, share=self.share, e2e_s=self.e2e_s, ttft_s=self.ttft_s, cv=self.cv, n=truth_requests
        )
        return World(self.server, (goodput(self.share, e2e_s=self.e2e_s, ttft_s=self.ttft_s),), knee_rps, self.cv)


PS = "processor sharing"
FIFO_RPS = fifo_knee_rps(1.0, 0.95, 10.0)
CASES = (
    Case(f"{PS}, exponential, 95 % in 10x", SharingServer(EXPONENTIAL), 0.95, 10.0),
    Case(f"{PS}, exponential, 95 % in 20x", SharingServer(EXPONENTIAL), 0.95, 20.0),
    Case(f"{PS}, exponential, 99 % in 20x", SharingServer(EXPONENTIAL), 0.99, 20.0),
    Case(f"{PS}, exponential, 99 % in 50x", SharingServer(EXPONENTIAL), 0.99, 50.0),
    Case(f"{PS}, exponential, first token", SharingServer(EXPONENTIAL), 0.95, ttft_s=1.0),
    Case(f"{PS}, log-normal, 95 % in 10x", SharingServer(), 0.95, 10.0),
    Case(f"{PS}, log-normal, 99 % in 20x", SharingServer(), 0.99, 20.0),
    Case(f"{PS}, log-normal cv 2, 95 % in 20x", SharingServer(Sizes("lognormal", 1.0, 2.0)), 0.95, 20.0),
    Case(f"{PS}, all alike, 95 % in 5x", SharingServer(Sizes("constant")), 0.95, 5.0),
    Case(f"{PS}, log-normal, arrivals cv 2, 95 % in 20x", SharingServer(), 0.95, 20.0, cv=2.0),
    Case("4 cores shared, 95 % in 5x", SharingServer(cores=4), 0.95, 5.0),
    Case("4 cores, at most 8 in service, first token", SharingServer(cores=4, most=8), 0.95, ttft_s=2.0),
    Case("first come first served, exponential", SharingServer(EXPONENTIAL, most=1), 0.95, 10.0, knee_rps=FIFO_RPS),
    Case("batching engine, whole answer", BatchServer(), 0.95, 4.0),
    Case("batching engine, sizes known", BatchServer(tells_sizes=True), 0.95, 4.0),
    Case("batching engine, first token", BatchServer(), 0.95, ttft_s=0.3),
    Case(f"tight: {PS}, log-normal, 95 % in 5x", SharingServer(), 0.95, 5.0),
    Case(f"tight: {PS}, log-normal, arrivals cv 2, 95 % in 10x", SharingServer(), 0.95, 10.0, cv=2.0),
    Case("unlike the model: 4 replicas by chance, 95 % in 15x", Replicas(SharingServer(EXPONENTIAL)), 0.95, 15.0),
    Case("unlike the model: shortest first, 95 % in 10x", ShortestFirst(), 0.95, 10.0),
)


def measure_case(case: Case, searches: int, truth_requests: int) -> dict[str, Any]:
    """Every search on one case, in figures."""
    world = case.world(truth_requests)
    began_s = time.monotonic()
    played = [play(world, seed) for seed in range(searches)]
    errors = np.array([error_of(knee, world) for knee, _ in played])
    inside = [knee.interval_rps[0] <= world.knee_rps <= knee.interval_rps[1] for knee, _ in played]
    half = [knee.interval_rps[1] / knee.rate_rps - 1.0 for knee, _ in played if knee.rate_rps]
    return {
        "case": case.name,
        "true_knee_rps": world.knee_rps,
        "searches": searches,
        "within_5_percent": float((np.abs(errors) < WITHIN).mean()),
        "no_knee": int(np.isinf(errors).sum()),
        "median_error": float(np.median(errors)),
        "error_p95": float(np.quantile(np.abs(errors), 0.95, method="higher")),
        "interval_covers": float(np.mean(inside)),
        "half_width": float(np.mean(half)) if half else None,
        "probes_mean": float(np.mean([len(probes) for _, probes in played])),
        "probes_most": max(len(probes) for _, probes in played),
        "requests_mean": float(np.mean([sum(probe.requests for probe in probes) for _, probes in played])),
        "requests_a_probe_most": max(probe.requests for _, probes in played for probe in probes),
        "seconds_a_search": (time.monotonic() - began_s) / searches,
    }


def overall(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all cases that say nothing against it in their name."""
    kept = [row for row in rows if not row["case"].startswith(("tight", "unlike"))]
    if not kept:
        return {}
    share = float(np.average([row["within_5_percent"] for row in kept], weights=[row["searches"] for row in kept]))
    sharing = [row for row in kept if row["case"].startswith(PS)]
    return {
        "searches": sum(row["searches"] for row in kept),
        "within_5_percent": share,
        "within_5_percent_processor_sharing": float(np.mean([row["within_5_percent"] for row in sharing])) if sharing else None,
        "interval_covers": float(np.mean([row["interval_covers"] for row in kept])),
        "probes_most": max(row["probes_most"] for row in kept),
        "requests_a_probe_most": max(row["requests_a_probe_most"] for row in kept),
    }


def lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A table for people."""
    yield f"{'case':56s} {'knee':>7s} {'in 5 %':>7s} {'median':>7s} {'p95':>6s} {'covers':>7s} {'probes':>7s} {'requests':>9s}"
    for row in rows:
        yield (
            f"{row['case']:56s} {row['true_knee_rps']:7.3f} {row['within_5_percent']:7.0%} {row['median_error']:+7.1%} "
            f"{row['error_p95']:6.1%} {row['interval_covers']:7.0%} {row['probes_mean']:7.1f} {row['requests_mean']:9.0f}"
        )


def main() -> int:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--searches", type=int, default=40, help="searches a case")
    parser.add_argument("--truth-requests", type=int, default=1_000_000)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = []
    print(next(lines([])), flush=True)
    for case in CASES:
        if options.only not in case.name:
            continue
        rows.append(measure_case(case, options.searches, options.truth_requests))
        print(list(lines(rows))[-1], flush=True)
    command = "python benchmarks/knee/accuracy.py " + shlex.join(sys.argv[1:])
    found = {"command": command, "machine": machine_facts(), "overall": overall(rows), "cases": rows}
    print(json.dumps(found["overall"], indent=2))
    if options.output is not None:
        options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
