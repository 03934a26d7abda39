"""What the measure benchmarks share: one load, run by setpoint's client in a process of its own, and the mock's truth.

As a script this is that client process: ``python load.py '{"url": ..., "rate_rps": ...}'`` prints its figures as JSON.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from setpoint.measure.client import run_load
from setpoint.measure.event_loop import run
from setpoint.measure.mock import MockLog, MockProcess
from setpoint.measure.options import LoadOptions
from setpoint.measure.result import LoadResult
from setpoint.measure.target import Target
from setpoint.record import Phase
from setpoint.report.figures import PhaseSpan as ReportSpan
from setpoint.report.figures import phase_measures
from setpoint.report.machine import machine_facts
from setpoint.requirement import ArrivalProcess
from setpoint.workload.arrivals import arrival_offsets_s
from setpoint.workload.plan import LoadPlan, PhaseSpan, PlannedRequest

QUIET_BELOW_PERCENT = 10.0
PROMPT = "word " * 64
LEAD_S = 0.3
RUN_ID = "bench"
CHILD_S = 600.0
PACKAGES = ("numpy", "pyarrow", "uvloop", "httptools", "psutil")


@dataclass(frozen=True, kw_only=True)
class Load:
    """One open-loop load: Poisson arrivals, constant answers; the warm-up is sent too, but is in no latency."""

    rate_rps: float
    tokens: int
    duration_s: float
    warmup_s: float = 1.0
    seed: int = 1
    drain_s: float = 10.0
    max_in_flight: int | None = None

    def plan(self) -> LoadPlan:
        """The same plan in every process."""
        total_s = self.warmup_s + self.duration_s
        rng = np.random.default_rng(self.seed)
        offsets_s = arrival_offsets_s(ArrivalProcess.POISSON, self.rate_rps, total_s, rng)
        spans = [PhaseSpan(Phase.WARMUP, 0.0, self.warmup_s), PhaseSpan(Phase.SUSTAINED, self.warmup_s, total_s)]
        requests = [
            PlannedRequest(index, time_s, spans[time_s >= self.warmup_s].phase, PROMPT, 64, self.tokens)
            for index, time_s in enumerate(offsets_s.tolist())
        ]
        return LoadPlan(self.seed, spans, requests, prompt_tokens_exact=False)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one run of setpoint's client reports. Latencies in seconds, of the sustained phase.

    cpu_s: user and system time of the process after its imports: plan, load, reading, table and figures.
    imports_cpu_s: before that. start_s: the plan's zero on ``time.monotonic``.
    """

    start_s: float
    offered: int
    ok: int
    unsent: int
    tokens: int
    cpu_s: float
    imports_cpu_s: float
    load_cpu_share: float
    send_lag_p99_s: float | None
    loop_lag_p99_s: float | None
    sent_rps: float
    latencies_s: dict[str, float | None] = field(default_factory=dict)


def cpu_s() -> float:
    """User and system time of this process, all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def client_main(load: Load, url: str) -> Figures:
    """Plan, send, read, tabulate and summarise, as ``setpoint measure`` does."""
    imports_cpu_s = cpu_s()
    plan = load.plan()
    options = LoadOptions(drain_s=load.drain_s, max_in_flight=load.max_in_flight, run_id=RUN_ID, watch_server=False)
    start_s = time.monotonic() + LEAD_S
    result: LoadResult = run(run_load(Target(url, "mock-model"), plan, options, start_s=start_s))
    table = result.requests("bench")
    span = ReportSpan(load.warmup_s, load.warmup_s + load.duration_s)
    found = phase_measures(table, Phase.SUSTAINED, span)
    sent_s = sorted(row.sent_s for row in result.outcomes if row.sent_s is not None)
    return Figures(
        start_s=start_s,
        offered=len(plan.requests),
        ok=sum(row.completed for row in result.outcomes),
        unsent=sum(row.sent_s is None for row in result.outcomes),
        tokens=sum(row.output_tokens for row in result.outcomes),
        cpu_s=cpu_s() - imports_cpu_s,
        imports_cpu_s=imports_cpu_s,
        load_cpu_share=result.client.cpu_share,
        send_lag_p99_s=result.client.send_lag_p99_s,
        loop_lag_p99_s=result.client.loop_lag_p99_s,
        sent_rps=(len(sent_s) - 1) / (sent_s[-1] - sent_s[0]) if len(sent_s) > 1 else 0.0,
        latencies_s={
            "ttft_p50": found.ttft_s.p50,
            "ttft_p90": found.ttft_s.p90,
            "ttft_p99": found.ttft_s.p99,
            "itl_p50": found.itl_s.p50,
            "itl_p99": found.itl_s.p99,
            "e2e_p50": found.e2e_s.p50,
            "e2e_p99": found.e2e_s.p99,
        },
    )


def run_client(load: Load, mock: MockProcess, *, core: int | None) -> tuple[Figures, MockLog]:
    """One run in a fresh process on the given core, against a mock whose log is cleared first."""
    mock.reset_log()
    command = [sys.executable, __file__, json.dumps(asdict(load) | {"url": mock.url, "core": core})]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=CHILD_S)
    return Figures(**json.loads(done.stdout.splitlines()[-1])), mock.log()


def true_latencies_s(load: Load, log: MockLog, start_s: float) -> dict[str, float]:
    """From the mock's log: what a client without any error of its own reports for the sustained phase."""
    known = log.by_id()
    ttft_s, e2e_s, gaps_s = [], [], []
    for planned in load.plan().requests:
        sent = known.get(f"{RUN_ID}-{planned.index}")
        if planned.phase is not Phase.SUSTAINED or sent is None:
            continue
        times_s = sent.token_times_s
        if len(times_s):
            ttft_s.append(times_s[0] - start_s - planned.intended_s)
            gaps_s.append(np.diff(times_s))
        if len(times_s) == planned.max_tokens:
            e2e_s.append(times_s[-1] - start_s - planned.intended_s)
    samples: dict[str, Any] = {"ttft": ttft_s, "itl": np.concatenate(gaps_s) if gaps_s else [], "e2e": e2e_s}
    return {f"{name}_p{percent}": nearest_rank(values, percent) for name, values in samples.items() for percent in (50, 90, 99)}


def nearest_rank(values: Sequence[float] | np.ndarray[Any, Any], percent: float) -> float:
    """The percentile by nearest rank; NaN of nothing."""
    ranked = np.sort(np.asarray(values, dtype=np.float64))
    return float(ranked[max(1, math.ceil(len(ranked) * percent / 100 - 1e-9)) - 1]) if len(ranked) else math.nan


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Median, smallest, largest and number of the repeats' values."""
    found = list(values)
    return {"median": statistics.median(found), "min": min(found), "max": max(found), "n": len(found)}


def cores(pin: bool) -> tuple[int | None, int | None]:
    """A core for the client and one for the mock; ``None`` where they are not pinned."""
    usable = sorted(os.sched_getaffinity(0)) if pin and hasattr(os, "sched_setaffinity") else []
    return (usable[0], usable[1]) if len(usable) >= 2 else (None, None)


def pin_process(pid: int, core: int | None) -> None:
    """Keep the process on one core."""
    if core is not None:
        os.sched_setaffinity(pid, {core})


def head(repeats: int) -> dict[str, Any]:
    """The head of a result: command, machine, versions, how busy the machine was before."""
    busy = psutil.cpu_percent(2)
    if busy > QUIET_BELOW_PERCENT:
        print(f"the machine is {busy:.0f} % busy: these figures are not worth keeping", flush=True)
    return {
        "command": "python " + " ".join(sys.argv),
        "machine": machine_facts(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "cpu_percent_before": busy,
        "repeats": repeats,
    }


def write(document: dict[str, Any], path: Path | None) -> None:
    """The result as JSON, to the file if there is one."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    job = json.loads(sys.argv[1])
    url, core = job.pop("url"), job.pop("core")
    pin_process(0, core)
    print(json.dumps(asdict(client_main(Load(**job), url))))


if __name__ == "__main__":
    main()
