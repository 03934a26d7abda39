"""What is known of this machine before anything is measured, the best there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc

from setpoint.hardware.errors import HardwareError
from setpoint.loop.errors import BadInput
from setpoint.loop.forecast.machine import (
    KnownMachine,
    MeasuredTables,
    machine_of_hardware,
    machine_of_runs,
    machine_of_timer,
)
from setpoint.loop.store.calibration import past_calibration
from setpoint.policy.step_time import CPU_PRIOR_S
from setpoint.report.files import RunFolderError, read_run
from setpoint.requirement import Requirement
from setpoint.simulate.calibrated import TooFewSteps
from setpoint.simulate.timing import LineTimer

PAST_ERROR = 0.15
"""Of a machine measured in another hour: cores that are shared are not as fast at all times."""
GUESS_ERROR = 0.8
"""Where not even the model's size is known: a factor of two either way is one standard deviation or so."""


def prior_machine(requirement: Requirement, calibration: Path | None, say: Callable[[str], None]) -> KnownMachine:
    """From ``calibration`` (a run folder, or a file of ``setpoint hardware calibrate``) if it is given, else what past runs
    taught, else what the catalogue says of this machine, else a guess.

    Raises ``BadInput`` for a ``calibration`` that cannot be used.
    """
    if calibration is not None:
        return _given(calibration)
    try:
        return _of_the_past(requirement, say) or machine_of_hardware(requirement)
    except HardwareError as error:
        say(f"nothing is known of this model's steps before the first measurement: {error}")
        return machine_of_timer(LineTimer(*CPU_PRIOR_S, source="physics"), "a guess", GUESS_ERROR)


def _of_the_past(requirement: Requirement, say: Callable[[str], None]) -> KnownMachine | None:
    """What past runs taught of this model on this machine, if their rows were kept."""
    past = past_calibration(requirement.model.source, say=say)
    if past is None:
        return None
    try:
        known = machine_of_runs([MeasuredTables(*tables) for tables in past.tables()])
    except (TooFewSteps, ValueError):
        return None
    return replace(known.widened(PAST_ERROR), words=past.provenance.words())


def _given(source: Path) -> KnownMachine:
    try:
        if source.is_dir():
            run = read_run(source)
            if run.steps is None:
                raise BadInput(f"--calibration {source}: the run has no steps; give one of setpoint's own engine")
            candidates = pc.unique(run.steps["candidate"]).to_pylist()
            return machine_of_runs(
                [
                    MeasuredTables(
                        *(
                            None if table is None else table.filter(pc.equal(table["candidate"], name))
                            for table in (run.requests, run.steps, run.decisions)
                        )
                    )
                    for name in candidates
                ]
            )
        return _of_file(source)
    except (RunFolderError, HardwareError, TooFewSteps, OSError, ValueError) as error:
        raise BadInput(f"--calibration {source}: {str(error).splitlines()[0]}") from error


def _of_file(file: Path) -> KnownMachine:
    import json

    from setpoint.hardware.calibrations import StepsCalibration, parsed
    from setpoint.hardware.step_fit import step_fit_from
    from setpoint.hardware.step_time import ObservedTimer

    found = parsed(json.loads(file.read_text(encoding="utf-8")), where=str(file))
    if not isinstance(found, StepsCalibration):
        raise HardwareError("is not a calibration of steps; 'setpoint hardware calibrate' writes one")
    timer = ObservedTimer(step_fit_from(found.fit), found.relative_error)
    return machine_of_timer(timer, f"the calibration {found.name}", found.relative_error)
