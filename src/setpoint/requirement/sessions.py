"""Conversations: how many turns they have, how long a person thinks between them, and how much is added."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from setpoint.requirement.part import Fault, Part
from setpoint.requirement.tokens import TokenDistribution

MAX_TURNS = 1_000
MAX_THINK_S = 86_400.0

Seconds = Annotated[float, Field(ge=0, le=MAX_THINK_S)]


class ConstantSeconds(Part):
    """Always the same time."""

    kind: Literal["constant"] = "constant"
    value_s: Seconds


class UniformSeconds(Part):
    """Every time from ``min_s`` to ``max_s`` alike."""

    kind: Literal["uniform"] = "uniform"
    min_s: Seconds
    max_s: Seconds

    def faults(self) -> Iterator[Fault]:
        """``min_s`` must not exceed ``max_s``."""
        if self.min_s > self.max_s:
            yield Fault(("min",), f"at most max ({self.max_s:g} s)")


class LognormalSeconds(Part):
    """Log-normal by its median and 95th percentile, clipped to ``[min_s, max_s]``: the usual shape of think times."""

    kind: Literal["lognormal"] = "lognormal"
    median_s: float = Field(gt=0, le=MAX_THINK_S)
    p95_s: float = Field(gt=0, le=MAX_THINK_S)
    min_s: Seconds = 0.0
    max_s: Seconds

    def faults(self) -> Iterator[Fault]:
        """``min_s <= median_s <= p95_s <= max_s`` must hold."""
        if self.min_s > self.median_s:
            yield Fault(("min",), f"at most the median ({self.median_s:g} s)")
        if self.p95_s < self.median_s:
            yield Fault(("p95",), f"at least the median ({self.median_s:g} s)")
        if self.max_s < self.p95_s:
            yield Fault(("max",), f"at least p95 ({self.p95_s:g} s)")


DurationDistribution = Annotated[ConstantSeconds | UniformSeconds | LognormalSeconds, Field(discriminator="kind")]


class Sessions(Part):
    """Conversations of several turns; every turn's prompt is the conversation so far and what the user adds.

    turns: turns of a session, a number from 1. think_time: from the last token of an answer to the next turn.
    added_tokens: tokens the user adds in the second turn and later; ``None``: as many as a prompt has.
    """

    turns: TokenDistribution
    think_time: DurationDistribution = ConstantSeconds(value_s=0.0)
    added_tokens: TokenDistribution | None = None

    def faults(self) -> Iterator[Fault]:
        """Sessions have an end."""
        if self.turns.largest > MAX_TURNS:
            yield Fault(("turns",), f"at most {MAX_TURNS} turns")
