"""Forecasts of many configurations, over as many processes as there are cores to spare."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from types import TracebackType
from typing import Self

from setpoint.loop.forecast.forecast import Forecast, Outcome, outcome_in, summed_up
from setpoint.loop.forecast.machine import KnownMachine
from setpoint.loop.forecast.worlds import World
from setpoint.loop.schedule import Schedule
from setpoint.policy.configuration import ServingConfig
from setpoint.requirement import Requirement

MOST_PROCESSES = 8
MACHINES = 3


class Forecaster:
    """Forecasts of one requirement under one schedule. Use as a context: leaving it ends the processes.

    processes: how many besides this one at most; with 1 or less all is done in this one, with the same results.
    """

    def __init__(self, requirement: Requirement, schedule: Schedule, *, processes: int = 1) -> None:
        self.requirement = requirement
        self.schedule = schedule
        self._known: deque[tuple[KnownMachine, dict[tuple[str, World], Outcome]]] = deque(maxlen=MACHINES)
        workers = min(processes, MOST_PROCESSES)
        self._pool = (
            ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_leave_interrupts)
            if workers > 1
            else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def outcomes(
        self, configs: Mapping[str, ServingConfig], machine: KnownMachine, worlds: Sequence[World]
    ) -> dict[str, tuple[Outcome, ...]]:
        """What each configuration shows in each world, in the order of ``worlds``.

        What was asked before of the same ``machine`` object is remembered, for the last ``MACHINES`` of them.
        """
        known = self._of(machine)
        wanted = [
            (_key(config), world, config)
            for config in configs.values()
            for world in worlds
            if (_key(config), world) not in known
        ]
        run = partial(_outcome, self.requirement, self.schedule, machine)
        if self._pool is None:
            for key, world, config in wanted:
                known[key, world] = run(config, world)
        else:
            futures: list[Future[Outcome]] = [self._pool.submit(run, config, world) for _, world, config in wanted]
            for (key, world, _), future in zip(wanted, futures, strict=True):
                known[key, world] = future.result()
        return {name: tuple(known[_key(config), world] for world in worlds) for name, config in configs.items()}

    def _of(self, machine: KnownMachine) -> dict[tuple[str, World], Outcome]:
        """What is known of ``machine``."""
        for each, known in self._known:
            if each is machine:
                return known
        self._known.append((machine, {}))
        return self._known[-1][1]

    def forecasts(
        self, configs: Mapping[str, ServingConfig], machine: KnownMachine, worlds: Sequence[World]
    ) -> dict[str, Forecast]:
        """The same summed up; a central world must be among ``worlds``."""
        found = self.outcomes(configs, machine, worlds)
        return {name: summed_up(config, found[name], machine.error_for(config.max_running)) for name, config in configs.items()}


def _leave_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal; what ends when is decided by the one that asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _key(config: ServingConfig) -> str:
    return config.model_dump_json()


def _outcome(
    requirement: Requirement, schedule: Schedule, machine: KnownMachine, config: ServingConfig, world: World
) -> Outcome:
    return outcome_in(world, requirement, config, machine, schedule, machine.error_for(config.max_running))
