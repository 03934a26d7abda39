"""A real server treated badly in full counts: cut clients, hostile bodies, slow readers, idle connections, a killed step,
SIGTERM.

After each, nothing may be left: KV blocks, requests, tasks, threads, open files at their baseline, memory flat, a normal
request served. Prints a JSON result; with ``--output`` it is written there too. Usage::

    python benchmarks/chaos/chaos.py --output benchmarks/results/chaos.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests/server/chaos")]

from chaos_bodies import generated, hostile  # noqa: E402
from chaos_scenarios import (  # noqa: E402
    cut_clients,
    idle_connections,
    killed_step,
    sigterm_under_load,
    slow_readers,
)
from chaos_server import ChaosServer, State, chaos_server  # noqa: E402

from setpoint.report.machine import machine_facts  # noqa: E402

Scenario = Callable[[], Awaitable[dict[str, Any]]]


async def one(server: ChaosServer, baseline: State, name: str, scenario: Scenario) -> dict[str, Any]:
    """Run a scenario and look at what it left."""
    began_s = time.perf_counter()
    before = await server.state()
    figures = await scenario()
    took_s = time.perf_counter() - began_s
    after = await server.back_to(baseline)
    row = {"scenario": name, "took_s": round(took_s, 1), **figures, "rss_mb_before": before.rss_mb, "after": asdict(after)}
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


async def all_of(server: ChaosServer, clients: int, connections: int, cases: int) -> dict[str, Any]:
    """Every scenario on one server, SIGTERM last."""
    await cut_clients(server, 64)
    baseline = await server.rested_state()

    async def bodies() -> dict[str, Any]:
        by_hand = await hostile(server)
        by_schema = await asyncio.to_thread(generated, server, cases)
        return {"by_hand": by_hand, "by_schema": by_schema}

    plan: list[tuple[str, Scenario]] = [
        ("clients cut in mid-stream", lambda: cut_clients(server, clients)),
        ("malformed and hostile bodies", bodies),
        ("slow readers", lambda: slow_readers(server, 20)),
        ("idle connections", lambda: idle_connections(server, connections, asks=9)),
        ("executor killed in mid-step", lambda: killed_step(server, 32)),
        ("clients cut again", lambda: cut_clients(server, clients // 4, seed=2)),
    ]
    rows = [await one(server, baseline, name, scenario) for name, scenario in plan]
    rows.append({"scenario": "SIGTERM under load", **await sigterm_under_load(server, 16)})
    return {"baseline": asdict(baseline), "scenarios": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--cases", type=int, default=30, help="generated cases for each operation and mode of the schema")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    with chaos_server() as server:
        result = {"machine": machine_facts(), **asyncio.run(all_of(server, asked.clients, asked.connections, asked.cases))}
    text = json.dumps(result, indent=1)
    print(text)
    if asked.output is not None:
        asked.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
