"""The load of a tuning: as it was typed, or that of the kept measurements which the tuning goes on from.

Only what was measured under one load can be compared, so who goes on keeps the seed and the phases. A budget then bounds what
is spent from now on; it makes no phase longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from setpoint.loop.errors import BadInput
from setpoint.loop.schedule import lengthened, schedule_for
from setpoint.loop.tuning.keeping import SharedLoad, kept_load
from setpoint.requirement import Requirement

DEFAULT_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedLoad:
    """What the command line says of the load, ``None`` where it says nothing.

    seed: of the arrivals. sustained_s: of each sustained phase. budget_s: how long measurements may take together, if phases
    are to be made as long as that allows.
    """

    seed: int | None = None
    sustained_s: float | None = None
    budget_s: float | None = None


def load_for(requirement: Requirement, typed: TypedLoad, *, kept_in: Path | None = None) -> SharedLoad:
    """The load of what is kept for ``requirement`` in the run folder ``kept_in``; where nothing is, as ``typed`` has it.

    Raises ``BadInput`` if ``typed`` contradicts what is kept.
    """
    kept = None if kept_in is None else kept_load(kept_in, requirement)
    if kept is None:
        return _as_typed(requirement, typed)
    if typed.seed not in (None, kept.seed):
        raise _contradiction("--seed", f"{typed.seed}", f"{kept_in}", f"seed {kept.seed}")
    kept_s = kept.schedule.sustained_s
    if typed.sustained_s is not None and typed.sustained_s != kept_s:
        raise _contradiction("--duration", f"{typed.sustained_s:g}", f"{kept_in}", f"sustained phases of {kept_s:g} s")
    return kept


def _as_typed(requirement: Requirement, typed: TypedLoad) -> SharedLoad:
    schedule = schedule_for(requirement, sustained_s=typed.sustained_s)
    if typed.sustained_s is None and typed.budget_s is not None:
        schedule = lengthened(schedule, requirement, typed.budget_s)
    return SharedLoad(DEFAULT_SEED if typed.seed is None else typed.seed, schedule)


def _contradiction(option: str, value: str, folder: str, kept_with: str) -> BadInput:
    return BadInput(
        f"{option} {value}: what is kept in {folder} was measured with {kept_with}; leave {option} out to go on from it,"
        " or leave --resume out to measure all anew"
    )
