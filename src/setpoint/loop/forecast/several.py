"""Forecasts of many configurations, over as many processes as there are cores to spare."""

from __future__ import annotations

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


class Forecaster:
    """Forecasts of one requirement under one schedule. Use as a context: leaving it ends the processes.

    processes: how many besides this one at most; with 1 or less all is done in this one, with the same results.
    """

    def __init__(self, requirement: Requirement, schedule: Schedule, *, processes: int = 1) -> None:
        self.requirement = requirement
        self.schedule = schedule
        workers = min(processes, MOST_PROCESSES)
        self._pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn")) if workers > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def outcomes(
        self, configs: Mapping[str, ServingConfig], machine: KnownMachine, worlds: Sequence[World]
    ) -> dict[str, tuple[Outcome, ...]]:
        """What each configuration shows in each world, in the order of ``worlds``."""
        run = partial(_outcomes, self.requirement, self.schedule, machine, tuple(worlds))
        if self._pool is None:
            return {name: run(config) for name, config in configs.items()}
        futures: dict[str, Future[tuple[Outcome, ...]]] = {
            name: self._pool.submit(run, config) for name, config in configs.items()
        }
        return {name: each.result() for name, each in futures.items()}

    def forecasts(
        self, configs: Mapping[str, ServingConfig], machine: KnownMachine, worlds: Sequence[World]
    ) -> dict[str, Forecast]:
        """The same summed up; a central world must be among ``worlds``."""
        found = self.outcomes(configs, machine, worlds)
        return {name: summed_up(config, found[name], machine.error_for(config.max_running)) for name, config in configs.items()}


def _outcomes(
    requirement: Requirement, schedule: Schedule, machine: KnownMachine, worlds: tuple[World, ...], config: ServingConfig
) -> tuple[Outcome, ...]:
    error = machine.error_for(config.max_running)
    return tuple(outcome_in(world, requirement, config, machine, schedule, error) for world in worlds)
