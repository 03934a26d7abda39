"""Loads on a real server of this machine: setpoint's own, with the demo model, in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from setpoint.loop.measure import MeasureOptions
from setpoint.loop.measuring import MeasuredRun
from setpoint.loop.on_target import measure_target
from setpoint.loop.own_server import on_own_server
from setpoint.loop.schedule import Schedule
from setpoint.measure.event_loop import run
from setpoint.measure.target import Target
from setpoint.policy.configuration import ServingConfig
from setpoint.requirement import Requirement, parse_requirement

Result = TypeVar("Result")


def on_server(requirement: str, config: ServingConfig, work: Callable[[Target], Awaitable[Result]]) -> Result:
    """What ``work`` comes to on a server of the requirement (its YAML text) under ``config``."""
    with tempfile.TemporaryDirectory(prefix="setpoint-") as folder:
        file = Path(folder) / "requirement.yaml"
        file.write_text(requirement, encoding="utf-8")
        return run(on_own_server(str(file), config, work, log=None))


async def put(
    target: Target, requirement: Requirement | str, schedule: Schedule, *, seed: int, concurrency: int | None = None
) -> MeasuredRun:
    """Put the requirement's load on the target; with ``concurrency`` a closed loop of so many clients."""
    asked = parse_requirement(requirement, "experiment") if isinstance(requirement, str) else requirement
    options = MeasureOptions(schedule, output=None, seed=seed, quiet=True, concurrency=concurrency)
    return (await measure_target(target, asked, options)).measured
