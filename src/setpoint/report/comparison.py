"""The record of a comparison of runs: what differs between A and B, with how much confidence."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from setpoint.record import Phase, Record

Ends = tuple[float | None, float | None]


class Better(StrEnum):
    """The verdict on one figure."""

    A = "A better"
    B = "B better"
    UNDECIDED = "no difference shown"


class FigureComparison(Record):
    """One figure of one phase in both runs, in the unit ``unit`` ("s", "share", "/s", "tokens/s" or "" for a ratio).

    ``a`` and ``b`` are ``None`` where a run cannot say. ``difference`` is b - a, ``ratio`` b / a; an end of a 95 %
    interval that is not bounded is ``None``, and so is the whole interval where neither is. ``verdict`` follows from
    ``difference_interval``: A or B is better only if it leaves out zero. ``stands_alone``: it still does at the confidence
    that allows for the number of figures compared (Bonferroni). ``remark`` says why a figure has no interval, or why no side of
    it is the better one.
    """

    phase: Phase
    metric: str
    statistic: str
    unit: str
    better: Literal["lower", "higher"]
    a: float | None
    b: float | None
    difference: float | None
    difference_interval: Ends | None
    ratio: float | None
    ratio_interval: Ends | None
    verdict: Better
    stands_alone: bool
    remark: str = ""


class Side(Record):
    """One side of a comparison: its run folders in the order of the rounds, and the candidate looked at in each."""

    folders: list[str]
    candidates: list[str]
    offered: int


class Comparison(Record):
    """Two sides, compared figure by figure.

    ``method`` is ``within`` (one run a side: the uncertainty is that of the samples within each run; what differs from
    run to run is not in it) or ``between`` (several interleaved runs a side: it is that of the differences between
    rounds). ``changed`` is what differs in the configurations; ``warnings`` say what besides the thing compared may
    explain a difference.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    kind: Literal["compare"] = "compare"
    a: Side
    b: Side
    method: Literal["within", "between"]
    rounds: int
    confidence: float
    changed: list[str]
    figures: list[FigureComparison]
    words: str
    multiple_comparisons: str
    warnings: list[str]

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    def to_json(self) -> str:
        """The comparison as JSON text."""
        return self.model_dump_json(by_alias=True, indent=2)
