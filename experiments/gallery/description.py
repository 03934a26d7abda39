"""An experiment: a claim, how it is put to the test, the shape that is expected, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from setpoint.report.charts.frame import Format
from setpoint.report.charts.picture import Strip
from setpoint.report.format import round_number


class Kind(StrEnum):
    """Whether its figures come from the simulator or from a server on this machine."""

    SIMULATED = "simulated"
    MEASURED = "measured"


class Size(StrEnum):
    """``full``: what the result file holds. ``quick``: less of the same, for the tests (simulated) or a first look "
    "(measured)."""

    FULL = "full"
    QUICK = "quick"


@dataclass(frozen=True, slots=True)
class Expected:
    """One part of the expected shape, as a number and its bound. ``value`` is ``None`` where nothing was found."""

    what: str
    value: float | None
    sense: Literal["at least", "at most"]
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the value is on the right side of its bound; what was not found does not hold."""
        if self.value is None:
            return False
        return self.value >= self.bound if self.sense == "at least" else self.value <= self.bound


@dataclass(frozen=True, slots=True)
class Picture:
    """The figure: panels over one axis."""

    title: str
    x_name: str
    strips: Sequence[Strip]
    x_form: Format = round_number
    log_x: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to. rows: one of the table for each line, as text. facts: sizes, seeds, sources, whatever else "
    "is kept."""

    expected: Sequence[Expected]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    picture: Picture
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Experiment:
    """One claim and its test.

    name: its folder. claim: one sentence. kind and where: what it runs on. method: what is done. shape: what is expected to
    be seen, in words. reading: what follows, and when it is not so. run: makes the outcome from a size and a seed.
    """

    name: str
    claim: str
    kind: Kind
    where: str
    method: str
    shape: str
    reading: str
    run: Callable[[Size, int], Outcome]
