"""Soak: a quarter of an hour at 90 % of the knee. Does memory grow, does the tail drift?

    python benchmarks/contention/soak.py --knee 30

Resident memory of the server and its children is read every 5 s; growth is from the mean of the first tenth after the
warm-up of 3 minutes to the mean of the last tenth. The P99 of windows of 15 s is tested for a rise
(``setpoint.statistics.trend``). At most 15.5 minutes; quick: one.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import numpy as np
import psutil
from burst import tail_s
from driving import CONFIGS, Load, Run, put, serving
from examples import requirement_of
from figures import client_account, load_figures, rows_of, windows
from script import Criterion, Script

from setpoint.measure.target import Target
from setpoint.statistics import FloatArray
from setpoint.statistics.trend import batch_means, rising_trend

SHARE = 0.9
SOAK_S, WARM_S = 900.0, 180.0
READ_EVERY_S, WINDOW_S = 5.0, 15.0
MOST_GROWTH = 0.02
LEAST_P_VALUE = 0.01


def server_memory_bytes() -> int:
    """Resident bytes of everything this process has started."""
    total = 0
    for child in psutil.Process(os.getpid()).children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


async def memory_readings(seconds: float) -> list[tuple[float, int]]:
    """(seconds, bytes) until the end."""
    readings: list[tuple[float, int]] = []
    for number in range(int(seconds / READ_EVERY_S)):
        readings.append((number * READ_EVERY_S, server_memory_bytes()))
        await asyncio.sleep(READ_EVERY_S)
    return readings


def growth(readings: list[tuple[float, int]], warm_s: float) -> float | None:
    """Relative growth from the first tenth after ``warm_s`` to the last tenth."""
    kept = np.array([size for at_s, size in readings if at_s >= warm_s], dtype=np.float64)
    tenth = max(1, len(kept) // 10)
    return float(kept[-tenth:].mean() / kept[:tenth].mean() - 1) if len(kept) >= 2 else None


def drift(tails_s: FloatArray) -> dict[str, Any]:
    """Rise of the tail over the soak, in seconds, and how probable one at least as clear is where there is none."""
    means = batch_means(tails_s)
    if means is None:
        return {"rise_s": None, "p_value": None}
    found = rising_trend(means)
    return {"rise_s": found.rise, "p_value": found.p_value}


def main() -> None:
    script = Script("soak", __doc__ or "", example="recommendation")
    given = script.options()
    knee_rps = script.knee_rps(given.example)
    seconds, warm_s = (45.0, 10.0) if given.quick else (SOAK_S, WARM_S)
    window_s = 1.0 if given.quick else WINDOW_S
    load = Load(given.example, SHARE * knee_rps, seconds, warmup_s=5.0, seed=given.seed)
    script.announce([load.length_s])

    async def work(target: Target) -> tuple[Run, list[tuple[float, int]]]:
        reading = asyncio.ensure_future(memory_readings(load.warmup_s + seconds))
        return await put(target, load), await reading

    run, readings = serving(given.example, CONFIGS[given.example], work)
    script.done(f"{seconds:g} s")
    rows = rows_of(run)
    starts_s, inside = windows(rows, load.warmup_s, load.warmup_s + seconds, window_s)
    tails_s = np.array([tail_s(rows.where(each)) or np.nan for each in inside])
    trend = drift(tails_s[np.isfinite(tails_s)])
    criteria = [
        Criterion("growth of memory after the warm-up", "at_most", MOST_GROWTH, growth(readings, warm_s), len(readings)),
        Criterion("P value of a rise of P99", "at_least", LEAST_P_VALUE, trend["p_value"], len(tails_s)),
    ]
    facts = {
        "example": given.example,
        "knee_rps": knee_rps,
        "seconds": seconds,
        "trend": trend,
        "memory": [{"at_s": at_s, "bytes": size} for at_s, size in readings],
        "p99_s": [{"at_s": float(at), "p99_s": float(tail)} for at, tail in zip(starts_s, tails_s, strict=True)],
        "figures": load_figures(rows.where(rows.phase == "sustained"), seconds, requirement_of(given.example).slo),
        "client": client_account(run),
    }
    script.keep(criteria, facts)


if __name__ == "__main__":
    main()
