"""Plans in a process of their own at the lowest priority: whoever serves is never waited for."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Protocol

from setpoint.loop.adapt.replan import Answer, Question, replan

NICENESS = 19
DEAD = "the process that plans ended; the next plan starts another"


class Planner(Protocol):
    """Whoever answers questions."""

    async def answer(self, question: Question) -> Answer:
        """An answer, whatever happens: what goes wrong is its ``problem``."""
        ...

    def close(self) -> None:
        """No more questions."""
        ...


class ProcessPlanner:
    """One process, started at once, so that the first plan does not wait for it; started anew if it dies."""

    def __init__(self, answer: Callable[[Question], Answer] = replan) -> None:
        self._answer = answer
        self._pool = _pool()

    async def answer(self, question: Question) -> Answer:
        """See ``Planner``; at most one at a time."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, question)
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = _pool()
            return Answer(problem=DEAD)
        except Exception as error:  # a plan that fails is no plan; the server goes on
            return Answer(problem=f"the plan failed: {error or type(error).__name__}")

    def close(self) -> None:
        """Let go of the process; a plan under way ends by itself, its time being bounded."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _pool() -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_lowest_priority)
    pool.submit(os.getpid)
    return pool


def _lowest_priority() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server drains and lets go
    os.nice(NICENESS)
