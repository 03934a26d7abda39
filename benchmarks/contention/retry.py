"""``Retry-After`` means something: clients that come back exactly when told get in, hardly later than an oracle could arrange.

    python benchmarks/contention/retry.py --knee 30

10 s at twice the knee in a steady 0.7x, pooled over bursts. Each refused request comes again after the milliseconds it
was told (``retry-after-ms``), until it is admitted. The oracle knows every arrival of the same run and what the machine
served per second when full (a load of three times the knee before): it gives each refused request, in order, the first
quarter of a second with room beside all that were not refused. At most 4.5 minutes; quick: one.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
from driving import CONFIGS, Load, put, serving
from examples import requirement_of
from figures import load_figures, rows_of
from script import Criterion, Script

from setpoint.loop.prompts import prompts_for
from setpoint.measure.probe import discover
from setpoint.measure.target import Target
from setpoint.workload.plan import LoadPlan, PlannedRequest

STEADY, BURST = 0.7, 2.0
BURSTS, CALM_S, BURST_S, RECOVERY_S = 3, 10.0, 10.0, 50.0
FULL_FACTOR, FULL_S = 3.0, 12.0
SLOT_S = 0.25
MOST_ATTEMPTS = 20
GIVE_UP_S = 60.0
LEAST_FIRST, MOST_OF_ORACLE = 0.9, 1.5


@dataclass(slots=True)
class Client:
    """One request and its attempts: moments at which it was refused, what it was told, when it was answered."""

    request: PlannedRequest
    told_s: list[float] = field(default_factory=list)
    admitted_at_s: float | None = None
    answered_s: float | None = None
    status: int = 0

    @property
    def wait_s(self) -> float:
        """From the intended send to the attempt that was admitted."""
        return (self.admitted_at_s or np.inf) - self.request.intended_s


async def ask(target: Target, request: PlannedRequest, *, streaming: bool) -> tuple[int, float]:
    """One attempt on a connection of its own: status, and the seconds it was told to wait."""
    address = target.address
    body = json.dumps(
        {
            "model": target.model,
            "prompt": request.prompt,
            "max_tokens": request.max_tokens,
            "stream": streaming,
            "temperature": 0,
            "ignore_eos": True,
        }
    ).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: {address.authority}\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(head.encode() + b"content-type: application/json\r\n\r\n" + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        lines = answer.decode("latin-1").split("\r\n")
        named = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        await reader.read()
        return int(lines[0].split(" ")[1]), float(named.get("retry-after-ms", 0.0)) / 1e3
    finally:
        writer.close()


async def live(target: Target, client: Client, began_s: float, *, streaming: bool) -> None:
    """Send at the intended time; come back exactly when told."""
    at_s = client.request.intended_s
    while len(client.told_s) < MOST_ATTEMPTS:
        await asyncio.sleep(max(0.0, began_s + at_s - monotonic()))
        client.status, told_s = await ask(target, client.request, streaming=streaming)
        if client.status == 200:
            client.admitted_at_s = at_s
            client.answered_s = monotonic() - began_s
            return
        client.told_s.append(told_s)
        at_s = monotonic() - began_s + told_s


async def honouring(target: Target, plan: LoadPlan, *, streaming: bool) -> list[Client]:
    """Every request of the plan as such a client."""
    clients = [Client(request) for request in plan.requests]
    began_s = monotonic() + 0.1
    tasks = [asyncio.ensure_future(live(target, client, began_s, streaming=streaming)) for client in clients]
    await asyncio.wait(tasks, timeout=plan.duration_s + GIVE_UP_S)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return clients


def oracle_waits_s(clients: list[Client], capacity_rps: float) -> list[float]:
    """Waits of the refused if each, in turn, had been told the first slot with room for it beside all who were not refused."""
    last_s = max(client.request.intended_s for client in clients)
    room = np.full(int((last_s + 600) / SLOT_S), capacity_rps * SLOT_S)
    for client in clients:
        if not client.told_s:
            room[int(client.request.intended_s / SLOT_S)] -= 1
    for slot in range(len(room) - 1):  # what a slot could not take is work of the next
        room[slot + 1] += min(0.0, room[slot])
        room[slot] = max(0.0, room[slot])
    waits = []
    for client in clients:
        if client.told_s:
            slot, need = int(client.request.intended_s / SLOT_S) + 1, 1.0
            while need > 1e-9 and slot < len(room) - 1:
                share = min(need, float(room[slot]))
                room[slot] -= share
                need -= share
                slot += 1
            waits.append(slot * SLOT_S - client.request.intended_s)
    return waits


def main() -> None:
    script = Script("retry", __doc__ or "", example="recommendation")
    given = script.options()
    knee_rps = script.knee_rps(given.example)
    full = Load(given.example, FULL_FACTOR * knee_rps, FULL_S, warmup_s=6.0, drain_s=3.0, seed=given.seed + 50)
    bursts = 1 if given.quick else BURSTS
    load = Load(
        given.example,
        STEADY * knee_rps,
        CALM_S,
        warmup_s=10.0,
        seed=given.seed,
        burst_rps=BURST * knee_rps,
        bursts=bursts,
        burst_s=BURST_S,
        recovery_s=15.0 if given.quick else RECOVERY_S,
    )
    streaming = requirement_of(given.example).profile.streaming
    script.announce([full.length_s, load.length_s + GIVE_UP_S])

    async def work(target: Target) -> tuple[float, list[Client]]:
        run = await put(target, full)
        rows = rows_of(run)
        part = rows.where(rows.phase == "sustained")
        capacity_rps = load_figures(part, FULL_S, requirement_of(given.example).slo)["admitted"] / FULL_S
        script.done(f"full: {capacity_rps:.1f} admitted a second")
        found = await discover(target)
        plan = await asyncio.to_thread(lambda: load.plan(prompts_for(found.target, token_ids_accepted=True)))
        return capacity_rps, await honouring(found.target, plan, streaming=streaming)

    capacity_rps, clients = serving(given.example, CONFIGS[given.example], work)
    refused = [client for client in clients if client.told_s]
    first = [client for client in refused if len(client.told_s) == 1 and client.admitted_at_s is not None]
    script.done(f"{len(refused)} of {len(clients)} refused at first, {len(first)} of them admitted at the first retry")
    oracle_s = float(np.median(oracle_waits_s(clients, capacity_rps))) if refused else None
    wait_s = float(np.median([client.wait_s for client in refused])) if refused else None
    of_oracle = wait_s / oracle_s if wait_s is not None and oracle_s else None
    share = len(first) / len(refused) if refused else None
    criteria = [
        Criterion("admitted at the first retry, of those refused once", "at_least", LEAST_FIRST, share, len(refused)),
        Criterion("median total wait, of the oracle's", "at_most", MOST_OF_ORACLE, of_oracle, len(refused)),
    ]
    facts = {
        "example": given.example,
        "knee_rps": knee_rps,
        "capacity_rps": capacity_rps,
        "clients": len(clients),
        "refused": len(refused),
        "never_admitted": sum(client.admitted_at_s is None for client in clients),
        "median_wait_s": wait_s,
        "oracle_median_wait_s": oracle_s,
        "attempts": np.bincount([len(client.told_s) for client in clients]).tolist(),
        "waits_s": [round(client.wait_s, 3) for client in refused],
    }
    script.keep(criteria, facts)


if __name__ == "__main__":
    main()
