"""A plan and its limits shared out over client processes, so that together they are the plan and the limits again.

What belongs together, the turns of a conversation, stays together. Everything else goes to the process with the least
work so far: equal requests are dealt in turn, so that each process sends throughout the run. The arrival list is the
plan's own whatever the number of processes, so its dispersion is too.

When it is wrong: a limit of requests in flight is divided, so a process may hold requests back while another has room;
with few in flight per process that costs a little throughput, which is why a small limit takes few processes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from setpoint.measure.options import LoadOptions

if TYPE_CHECKING:
    from setpoint.workload.plan import LoadPlan, PlannedRequest

# What a request costs the client beside its tokens, in tokens.
REQUEST_COST_TOKENS = 25


def most_shards(plan: LoadPlan, options: LoadOptions, workers: int) -> int:
    """How many of ``workers`` processes have something to do; at least 1."""
    bounds = [workers, _groups(plan), options.connections_max]
    bounds += [limit for limit in (plan.concurrency, options.max_in_flight) if limit is not None]
    return max(1, min(bounds))


def shard_plan(plan: LoadPlan, shards: int) -> list[LoadPlan]:
    """``shards`` plans that hold every request of ``plan`` once, in its order, under its own index and time.

    A closed loop's slots are shared out too, and its requests in proportion to them. Raises ``ValueError`` for more
    shards than slots.
    """
    slots = [1] * shards if plan.concurrency is None else share_out(plan.concurrency, shards)
    parts: list[list[PlannedRequest]] = [[] for _ in range(shards)]
    # The least work per slot so far; the lower number first where that is equal.
    work = [(0.0, number) for number in range(shards)]
    owners: dict[int | str, int] = {}
    loads = [0.0] * shards
    for request, key in _keyed(plan):
        owner = owners.get(key)
        if owner is None:
            while work[0][0] != loads[work[0][1]] / slots[work[0][1]]:
                heapq.heapreplace(work, (loads[work[0][1]] / slots[work[0][1]], work[0][1]))
            owner = owners[key] = work[0][1]
        loads[owner] += REQUEST_COST_TOKENS + request.max_tokens
        parts[owner].append(request)
    closed = plan.concurrency is not None
    return [
        replace(plan, requests=requests, concurrency=slots[number] if closed else None) for number, requests in enumerate(parts)
    ]


def shard_options(options: LoadOptions, shards: int) -> list[LoadOptions]:
    """``options`` for each shard: limits divided without loss; only the caller watches the server."""
    connections = share_out(options.connections_max, shards)
    limits: list[int] | list[None] = [None] * shards
    if options.max_in_flight is not None:
        limits = share_out(options.max_in_flight, shards)
    return [
        replace(options, connections_max=connections[number], max_in_flight=limits[number], watch_server=False)
        for number in range(shards)
    ]


def share_out(total: int, shards: int) -> list[int]:
    """``total`` in ``shards`` whole parts that differ by at most one. Raises ``ValueError`` if one would be 0."""
    if total < shards:
        raise ValueError(f"{total} cannot be shared out over {shards} processes; each needs at least 1")
    whole, rest = divmod(total, shards)
    return [whole + (number < rest) for number in range(shards)]


def _keyed(plan: LoadPlan) -> Iterator[tuple[PlannedRequest, int | str]]:
    """Each request with the name of what must stay together: its conversation, or itself."""
    roots: dict[int, int | str] = {}
    for request in plan.requests:
        if request.follows is not None and request.follows in roots:
            key = roots[request.follows]
        else:
            key = request.index if request.session is None else request.session
        roots[request.index] = key
        yield request, key


def _groups(plan: LoadPlan) -> int:
    return len({key for _, key in _keyed(plan)})
