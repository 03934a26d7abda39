"""Puts the loop of one server together."""

from __future__ import annotations

from pathlib import Path

from setpoint.engine.reconfiguring import Reconfigurable
from setpoint.loop.adapt.audit import Audit
from setpoint.loop.adapt.driver import Adapter
from setpoint.loop.adapt.planner import ProcessPlanner
from setpoint.loop.adapt.rails import Rails
from setpoint.loop.errors import BadInput
from setpoint.requirement import Requirement


def make_adapter(
    engine: Reconfigurable, requirement: Requirement, rails: Rails, *, log: Path | None = None, dry_run: bool = False
) -> Adapter:
    """The loop beside ``engine``, which starts with its server. Raises ``BadInput`` for a log that cannot be written."""
    return Adapter(engine, requirement, rails, ProcessPlanner(), open_log(log), dry_run=dry_run)


def open_log(file: Path | None) -> Audit:
    """The log of changes. Raises ``BadInput``."""
    try:
        return Audit(file)
    except OSError as error:
        raise BadInput(f"--adapt-log: {file} cannot be written: {error.strerror or error}") from None
