"""What setpoint's load generator costs, and by how much its reports differ from the truth at high token rates.

    python benchmarks/measure/cost.py --output benchmarks/results/measure_cost.json

Client and mock server each have a core of their own (``--no-pin`` leaves that to the system). Reported, each as median,
smallest and largest of the repeats: streamed tokens per CPU-second of the client's process, everything after its imports
included (plan, sending, receiving, reading, table, figures); the distortion of TTFT, ITL and E2E, reported minus true,
where the truth is the mock's log of its sends; the highest request rate that one core holds; and how long after the
start of ``setpoint measure`` the first request arrives.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from load import Figures, Load, cores, head, pin_process, run_client, spread, true_latencies_s, write

from setpoint.measure.mock import MockLog, MockOptions, MockProcess

TOKEN_RATES = (5_000, 10_000, 20_000, 30_000, 40_000)
TOKENS = 128
REQUEST_RATES = (500, 1_000, 1_500, 2_000, 2_500, 3_000, 4_000, 5_000, 6_000)
SHORT_TOKENS = 4
TTFT_S, ITL_S = 0.05, 0.02
# A rate is held if every request was sent and answered, at that rate within 2 %, and no later than this (P99).
HELD_LAG_S, HELD_RATE_SHARE = 0.010, 0.02
MEASURE_S = 60.0


def streaming(rates: list[int], repeats: int, duration_s: float, pin: bool) -> list[dict[str, Any]]:
    """Cost and distortion at each token rate; the rates alternate over the repeats."""
    client_core, mock_core = cores(pin)
    found: dict[int, list[dict[str, float]]] = {rate: [] for rate in rates}
    with MockProcess(MockOptions(ttft_s=TTFT_S, ttft_cv=0.3, itl_s=ITL_S, itl_cv=0.2)) as mock:
        pin_process(mock.pid, mock_core)
        for repeat in range(repeats):
            for rate in rates:
                load = Load(rate_rps=rate / TOKENS, tokens=TOKENS, duration_s=duration_s, seed=repeat + 1)
                figures, log = run_client(load, mock, core=client_core)
                found[rate].append(streamed(load, figures, log))
                print(rate, {key: round(value, 3) for key, value in found[rate][-1].items()}, flush=True)
    return [row(rate, runs) for rate, runs in found.items()]


def streamed(load: Load, figures: Figures, log: MockLog) -> dict[str, float]:
    """One run in numbers; milliseconds."""
    true_s = true_latencies_s(load, log, figures.start_s)
    numbers = {
        "tokens_per_cpu_s": figures.tokens / figures.cpu_s,
        "tokens_per_cpu_s_with_imports": figures.tokens / (figures.cpu_s + figures.imports_cpu_s),
        "load_cpu_share": figures.load_cpu_share,
        "not_ok": figures.offered - figures.ok,
        "mock_lag_p99_ms": 1e3 * (log.tick_lag_p99_s or 0.0),
        "client_loop_lag_p99_ms": 1e3 * (figures.loop_lag_p99_s or 0.0),
    }
    for name, reported_s in figures.latencies_s.items():
        if reported_s is not None:
            numbers[f"{name}_true_ms"] = 1e3 * true_s[name]
            numbers[f"{name}_distortion_ms"] = 1e3 * (reported_s - true_s[name])
    return numbers


def row(rate: int, runs: list[dict[str, float]]) -> dict[str, Any]:
    """One rate over its repeats."""
    names = [name for name in runs[0] if all(name in run for run in runs)]
    return {"tokens_per_s": rate, **{name: spread(run[name] for run in runs) for name in names}}


def request_rates(repeats: int, duration_s: float, pin: bool) -> list[dict[str, Any]]:
    """Short answers at rising rates; each repeat climbs until a rate is not held."""
    client_core, mock_core = cores(pin)
    rows = []
    with MockProcess(MockOptions(ttft_s=0.01, itl_s=0.005)) as mock:
        pin_process(mock.pid, mock_core)
        for repeat in range(repeats):
            for rate in REQUEST_RATES:
                load = Load(rate_rps=rate, tokens=SHORT_TOKENS, duration_s=duration_s, seed=repeat + 1)
                figures, log = run_client(load, mock, core=client_core)
                rows.append(held_row(repeat, rate, load, figures, log))
                print(rows[-1], flush=True)
                if not rows[-1]["held"]:
                    break
    return rows


def held_row(repeat: int, rate: int, load: Load, figures: Figures, log: MockLog) -> dict[str, Any]:
    """One rate of one climb. The realised rate is compared with the plan's own, which chance makes differ from ``rate``."""
    offsets_s = [planned.intended_s for planned in load.plan().requests]
    planned_rps = (len(offsets_s) - 1) / (offsets_s[-1] - offsets_s[0])
    lag_s = figures.send_lag_p99_s or 0.0
    on_time = lag_s <= HELD_LAG_S and abs(figures.sent_rps / planned_rps - 1.0) <= HELD_RATE_SHARE
    return {
        "repeat": repeat,
        "requests_per_s": rate,
        "held": on_time and figures.ok == figures.offered,
        "sent_per_s": round(figures.sent_rps, 1),
        "send_lag_p99_ms": round(1e3 * lag_s, 3),
        "load_cpu_share": round(figures.load_cpu_share, 3),
        "not_ok": figures.offered - figures.ok,
        "requests_per_cpu_s": round(figures.offered / figures.cpu_s, 1),
        "mock_lag_p99_ms": round(1e3 * (log.tick_lag_p99_s or 0.0), 3),
    }


def first_request_s() -> float:
    """Start of the ``setpoint measure`` process to the first generation request at the server."""
    with MockProcess(MockOptions(ttft_s=0.01)) as mock, tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "setpoint", "measure", mock.url, "--rate", "20/s", "--duration", "2s"]
        command += ["--prompt-tokens", "16", "--output-tokens", "8", "--output", folder]
        start_s = time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=MEASURE_S, check=False)
        return mock.log().requests[0].received_s - start_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--duration-s", type=float, default=10.0)
    parser.add_argument("--token-rates", type=int, nargs="*", default=TOKEN_RATES)
    parser.add_argument("--no-pin", action="store_true", help="do not keep client and mock on a core each")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    pin = not arguments.no_pin
    document = head(arguments.repeats) | {"pinned": cores(pin)[0] is not None, "tokens_per_request": TOKENS}
    document["first_request_s"] = spread(first_request_s() for _ in range(arguments.repeats))
    print("first request after", document["first_request_s"], flush=True)
    document["streaming"] = streaming(list(arguments.token_rates), arguments.repeats, arguments.duration_s, pin)
    document["request_rates"] = request_rates(arguments.repeats, min(5.0, arguments.duration_s), pin)
    highest = [
        max((row["requests_per_s"] for row in document["request_rates"] if row["repeat"] == repeat and row["held"]), default=0)
        for repeat in range(arguments.repeats)
    ]
    document["requests_per_s_held"] = spread(highest)
    print("held", document["requests_per_s_held"], flush=True)
    write(document, arguments.output)


if __name__ == "__main__":
    main()
