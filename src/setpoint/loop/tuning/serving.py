"""One configuration served in a process of its own and measured with the plan's arrivals."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from setpoint.loop.console import progress_line
from setpoint.loop.measuring import MeasuredRun, load_options, measure
from setpoint.loop.own_server import on_own_server
from setpoint.loop.schedule import Schedule
from setpoint.loop.tuning.trial import Trial
from setpoint.measure.event_loop import run
from setpoint.measure.probe import discover
from setpoint.measure.target import Target
from setpoint.policy.configuration import ServingConfig
from setpoint.requirement import Requirement
from setpoint.workload.plan import LoadPlan


@dataclass(frozen=True, slots=True)
class Server:
    """Measures on a real server: the same ``plan`` on each configuration. ``logs``: folder of what servers print."""

    requirement_file: Path
    requirement: Requirement
    plan: LoadPlan
    schedule: Schedule
    logs: Path
    quiet: bool = False

    def __call__(self, name: str, config: ServingConfig) -> Trial:
        """See ``loop.Measure``."""
        began_s = time.monotonic()
        measured = run(self._measured(name, config))
        return Trial(name, config, measured, wall_s=time.monotonic() - began_s)

    async def _measured(self, name: str, config: ServingConfig) -> MeasuredRun:
        async def work(target: Target) -> MeasuredRun:
            found = await discover(target)
            load = load_options(self.requirement, self.schedule)
            with progress_line(name, quiet=self.quiet) as show:
                return await measure(found.target, self.requirement, self.plan, load, name=name, on_progress=show)

        return await on_own_server(str(self.requirement_file), config, work, log=self.logs / f"{name}.log")
