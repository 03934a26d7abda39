"""One load sent by several client processes: more than one core's worth of tokens, on one clock, with one result.

The plan is made before, from one seed; each process gets its share of it (``shards``), and all of them start at one
instant of ``CLOCK_MONOTONIC``, which the processes of a machine have in common. This process does not send: it adds up
the live figures, watches the server and puts the results together (``merge``). A process that ends early takes its rows
with it: its requests count as dropped, the others finish, and the run is invalid.
"""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from setpoint.measure.capacity import ASSUMED_CAPACITY, Capacity, cached_capacity
from setpoint.measure.client import OnProgress, run_load
from setpoint.measure.frames import Job, Start, portable
from setpoint.measure.merge import merge_progress, merge_results
from setpoint.measure.options import LoadOptions
from setpoint.measure.result import LoadResult
from setpoint.measure.running import Progress
from setpoint.measure.server_side import ServerSide, ServerWatch
from setpoint.measure.shards import most_shards, shard_options, shard_plan
from setpoint.measure.target import Target
from setpoint.measure.worker import Worker

if TYPE_CHECKING:
    from setpoint.workload.plan import LoadPlan, PlannedRequest

# From the word "start" to the plan's zero: twice what getting ready took, and this.
LEAD_S = 0.1
LEAD_MAX_S = 10.0
# Reading what was left unread and handing over the rows, after the drain.
HAND_OVER_WITHIN_S = 120.0
PROGRESS_PERIOD_S = 0.25

# A process is asked for no more than this share of what it is good to.
SAFE_SHARE = 0.7
CLOSED_TOKENS_PER_S = 100.0
TOKENS_WINDOW_S, REQUESTS_WINDOW_S = 5.0, 1.0


async def run_load_over_workers(
    target: Target,
    plan: LoadPlan,
    options: LoadOptions | None = None,
    on_progress: OnProgress | None = None,
    *,
    workers: int,
    keep: bool = False,
) -> LoadResult:
    """``client.run_load`` over ``workers`` processes; the same arguments, the same result.

    With 1, or where there is work for only one (one conversation, one slot), it is ``run_load`` in this process.
    Raises ``ValueError`` for fewer workers than 1 and what ``run_load`` raises it for, ``WorkerError`` if a process does
    not come up. Whatever ends this, the processes are gone when it returns.
    """
    if workers < 1:
        raise ValueError(f"workers: found {workers}; it must be at least 1")
    options = options or LoadOptions()
    shards = most_shards(plan, options, workers)
    if shards == 1:
        return await run_load(target, plan, options, on_progress, keep=keep)
    return await _Crew(target, plan, options, on_progress, shards, keep=keep).run()


class _Crew:
    """The processes of one run."""

    def __init__(
        self,
        target: Target,
        plan: LoadPlan,
        options: LoadOptions,
        on_progress: OnProgress | None,
        shards: int,
        *,
        keep: bool,
    ) -> None:
        self._target = portable(target)
        self._plan = plan
        self._options = portable(replace(options, run_id=options.run_id or secrets.token_hex(4)))
        self._on_progress = on_progress
        self._keep = keep
        self._progress: dict[int, Progress] = {}
        self._progress_due_s = 0.0
        self._workers = [Worker(number, shards) for number in range(shards)]

    async def run(self) -> LoadResult:
        """Start them, let them send, put the rest together."""
        watch = self._watch()
        try:
            # Each to its end, so that none is left behind when another does not start.
            started = await asyncio.gather(*(worker.start() for worker in self._workers), return_exceptions=True)
            for failure in filter(None, started):
                raise failure
            shards = shard_plan(self._plan, len(self._workers))
            settings = shard_options(self._options, len(self._workers))
            jobs = [Job(self._target, shard, setting) for shard, setting in zip(shards, settings, strict=True)]
            ready = [worker.ready(job) for worker, job in zip(self._workers, jobs, strict=True)]
            first_look = [watch.start()] if watch is not None else []
            setups_s, _ = await asyncio.gather(asyncio.gather(*ready), asyncio.gather(*first_look))
            start_s = monotonic() + min(LEAD_MAX_S, LEAD_S + 2.0 * max(setups_s))
            started_unix_s = time.time() + start_s - monotonic()
            parts = await self._send(start_s)
            duration_s = monotonic() - start_s
        finally:
            if watch is not None:
                await watch.stop()
            await asyncio.gather(*(worker.stop() for worker in self._workers))
        server = watch.result(start_s) if watch is not None else ServerSide()
        result = self._merged(shards, parts, server, started_unix_s=started_unix_s, duration_s=duration_s)
        self._report(finished=True)
        return result

    def _watch(self) -> ServerWatch | None:
        options = self._options
        if not options.watch_server:
            return None
        return ServerWatch(self._target, metrics_urls=options.metrics_urls, power=options.power)

    async def _send(self, start_s: float) -> list[LoadResult | str]:
        """Everybody sends; returns for each process its result, or why it has none."""
        end_s = None
        if self._plan.by_time:
            end_s = start_s + self._plan.duration_s + self._options.drain_s + HAND_OVER_WITHIN_S
        tasks = [asyncio.ensure_future(worker.work(Start(start_s), self._take_progress, end_s)) for worker in self._workers]
        try:
            stopped = await self._stopped(tasks)
            async with asyncio.timeout(HAND_OVER_WITHIN_S if stopped else None):
                parts = list(await asyncio.gather(*tasks))
            if stopped and not any(isinstance(part, LoadResult) for part in parts):
                raise asyncio.CancelledError  # It came before the first request.
            return parts
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stopped(self, tasks: Sequence[asyncio.Future[LoadResult | str]]) -> bool:
        """Wait for every process; whether a cancellation had them stop and hand over what they have."""
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not self._keep or current is None:
                raise
            current.uncancel()
            for worker in self._workers:
                worker.interrupt()
            return True
        return False

    def _take_progress(self, number: int, progress: Progress) -> None:
        self._progress[number] = progress
        now_s = monotonic()
        if now_s >= self._progress_due_s:
            self._progress_due_s = now_s + PROGRESS_PERIOD_S
            self._report(finished=False)

    def _report(self, *, finished: bool) -> None:
        if self._on_progress is not None and self._progress:
            self._on_progress(merge_progress(list(self._progress.values()), finished=finished))

    def _merged(
        self,
        shards: Sequence[LoadPlan],
        parts: Sequence[LoadResult | str],
        server: ServerSide,
        *,
        started_unix_s: float,
        duration_s: float,
    ) -> LoadResult:
        lost: dict[int, str] = {}
        failures = []
        for number, (worker, shard, part) in enumerate(zip(self._workers, shards, parts, strict=True)):
            if isinstance(part, str):
                seen = self._progress.get(number)
                mine = intended_of(shard, offered=0 if seen is None else seen.offered)
                lost |= {request.index: f"{worker.name} ended early: {part}" for request in mine}
                failures.append(f"The {worker.name} ended early ({part}) with its {len(mine)} requests")
        return merge_results(
            [part for part in parts if isinstance(part, LoadResult)],
            self._plan,
            self._options,
            server,
            lost=lost,
            failures=tuple(failures),
            workers=len(self._workers),
            started_unix_s=started_unix_s,
            duration_s=duration_s,
        )


def intended_of(shard: LoadPlan, *, offered: int) -> list[PlannedRequest]:
    """The requests of a process that ended early that count as offered.

    In an open loop those that the plan intends before its end; in a closed loop as many as it was seen to offer, and at
    least one for each of its slots.
    """
    if shard.concurrency is not None:
        return shard.requests[: max(offered, shard.concurrency)]
    return [request for request in shard.requests if request.follows is None or request.intended_s < shard.duration_s]


@dataclass(frozen=True, slots=True)
class WorkerChoice:
    """How many client processes a plan takes, and why, as one sentence."""

    workers: int
    why: str


def choose_workers(plan: LoadPlan, cores: int | None = None, capacity: Capacity | None = None) -> int:
    """How many client processes ``plan`` takes: ``worker_choice`` without the words."""
    return worker_choice(plan, cores, capacity).workers


def worker_choice(plan: LoadPlan, cores: int | None = None, capacity: Capacity | None = None) -> WorkerChoice:
    """Enough processes that each is asked for at most ``SAFE_SHARE`` of what one is good to; never more than cores.

    cores: by default those this process may run on. capacity: of one process, by default the one that a calibration of
    this machine left, or else an assumed one. The plan's load is that of its busiest seconds; of a closed loop only the
    slots are known, and each is taken for a stream of ``CLOSED_TOKENS_PER_S``.
    """
    cores = usable_cores() if cores is None else cores
    capacity = cached_capacity() or ASSUMED_CAPACITY if capacity is None else capacity
    tokens_per_s, requests_per_s = expected_load(plan)
    share = capacity.share(tokens_per_s=tokens_per_s, requests_per_s=requests_per_s)
    wanted = max(1, math.ceil(share / SAFE_SHARE - 1e-9))
    workers = most_shards(plan, LoadOptions(), min(wanted, max(1, cores)))
    load = f"the plan asks for up to {tokens_per_s:,.0f} tokens/s and {requests_per_s:,.0f} requests/s"
    why = f"{_processes(workers)}: {load}, {share:.0%} of one process's capacity ({capacity.words()})"
    if wanted == 1:
        return WorkerChoice(1, f"{why}; up to {SAFE_SHARE:.0%} one is enough")
    if workers == wanted:
        return WorkerChoice(workers, f"{why}, and each is kept to {SAFE_SHARE:.0%}")
    if workers == cores:
        return WorkerChoice(workers, f"{why}; {wanted} would keep each to {SAFE_SHARE:.0%}, but there are {cores} cores")
    return WorkerChoice(workers, f"{why}; {wanted} would keep each to {SAFE_SHARE:.0%}, but there is work for {workers} only")


def expected_load(plan: LoadPlan) -> tuple[float, float]:
    """Output tokens and requests per second in the busiest seconds of ``plan``.

    Tokens are counted where their request arrives, over ``TOKENS_WINDOW_S``, because an answer takes its time; requests
    over ``REQUESTS_WINDOW_S``.
    """
    if not plan.requests:
        return 0.0, 0.0
    tokens = np.array([request.max_tokens for request in plan.requests], dtype=np.float64)
    if plan.concurrency is not None:
        tokens_per_s = CLOSED_TOKENS_PER_S * plan.concurrency
        return tokens_per_s, tokens_per_s / float(tokens.mean())
    times_s = np.array([request.intended_s for request in plan.requests])
    return _busiest(times_s, tokens, TOKENS_WINDOW_S), _busiest(times_s, np.ones_like(tokens), REQUESTS_WINDOW_S)


def usable_cores() -> int:
    """The logical cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _busiest(times_s: NDArray[np.float64], amounts: NDArray[np.float64], window_s: float) -> float:
    """The largest amount per second in any window that begins with an arrival; times in ascending order."""
    before = np.concatenate([[0.0], np.cumsum(amounts)])
    # A hair less than the window, so that rounding does not put both its ends into it.
    ends = np.searchsorted(times_s, times_s + window_s * (1.0 - 1e-9), side="left")
    return float((before[ends] - before[:-1]).max()) / window_s


def _processes(workers: int) -> str:
    return "1 client process" if workers == 1 else f"{workers} client processes"
