"""Trials over several processes: each knows the requirement and keeps the step timers that it has seen."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from types import TracebackType
from typing import Self

from setpoint.plan.trial import Job, Trial

MOST_PROCESSES = 32

RunTrial = Callable[[Job], Trial]


class ProcessRunner:
    """Runs jobs in up to ``processes`` processes; with one, in this one. ``run_trial`` can be pickled.

    Long jobs are handed out first, so that the last to end is a short one. Jobs that are the same are run once.
    """

    def __init__(self, run_trial: RunTrial, processes: int | None = None) -> None:
        wanted = processes if processes is not None else usable_cores()
        self._run_trial = run_trial
        self._known: dict[tuple[object, ...], Trial] = {}
        workers = max(1, min(wanted, MOST_PROCESSES))
        self._pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn")) if workers > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, jobs: Sequence[Job], done: Callable[[int], None]) -> list[Trial]:
        """See ``trial.Runner``."""
        fresh = {_key(job): job for job in jobs if _key(job) not in self._known}
        order = sorted(fresh.values(), key=_size, reverse=True)
        finished = len(jobs) - len(order)
        done(finished)
        if self._pool is None:
            for job in order:
                self._known[_key(job)] = self._run_trial(job)
                finished += 1
                done(finished)
        else:
            futures: list[tuple[Job, Future[Trial]]] = [
                (job, self._pool.submit(partial(self._run_trial, job))) for job in order
            ]
            for job, future in futures:
                self._known[_key(job)] = future.result()
                finished += 1
                done(finished)
        return [self._known[_key(job)] for job in jobs]


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _key(job: Job) -> tuple[object, ...]:
    return (
        job.shape.name,
        job.serving.scheduler,
        job.serving.config.model_dump_json(),
        job.serving.context_tokens,
        job.serving.prefix_caching,
        job.rate_rps,
        job.requests,
        job.warmup_requests,
        job.seed,
        job.full,
        job.answer_s,
        job.cool_down_s,
    )


def _size(job: Job) -> float:
    return job.requests + job.warmup_requests + job.rate_rps * job.cool_down_s
