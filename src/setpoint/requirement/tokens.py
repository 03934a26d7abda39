"""How many tokens a prompt or an answer has: constant, uniform, log-normal, or a choice of values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from setpoint.requirement.part import Fault, Part

MAX_TOKENS = 1_000_000

Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]


class ConstantTokens(Part):
    """Always the same number of tokens."""

    kind: Literal["constant"] = "constant"
    value: Tokens

    @property
    def smallest(self) -> int:
        """The fewest tokens a draw can have."""
        return self.value

    @property
    def largest(self) -> int:
        """The most tokens a draw can have."""
        return self.value


class UniformTokens(Part):
    """Every whole number from ``min`` to ``max`` alike."""

    kind: Literal["uniform"] = "uniform"
    min: Tokens
    max: Tokens

    @property
    def smallest(self) -> int:
        """The fewest tokens a draw can have."""
        return self.min

    @property
    def largest(self) -> int:
        """The most tokens a draw can have."""
        return self.max

    def faults(self) -> Iterator[Fault]:
        """``min`` must not exceed ``max``."""
        if self.min > self.max:
            yield Fault(("min",), f"at most max ({self.max})")


class LognormalTokens(Part):
    """Log-normal by its median and 95th percentile, clipped to ``[min, max]``: the usual shape of real traffic."""

    kind: Literal["lognormal"] = "lognormal"
    median: float = Field(gt=0, le=MAX_TOKENS)
    p95: float = Field(gt=0, le=MAX_TOKENS)
    min: Tokens = 1
    max: Tokens

    @property
    def smallest(self) -> int:
        """The fewest tokens a draw can have."""
        return self.min

    @property
    def largest(self) -> int:
        """The most tokens a draw can have."""
        return self.max

    def faults(self) -> Iterator[Fault]:
        """``min <= median <= p95 <= max`` must hold."""
        if self.min > self.median:
            yield Fault(("min",), f"at most the median ({self.median:g})")
        if self.p95 < self.median:
            yield Fault(("p95",), f"at least the median ({self.median:g})")
        if self.max < self.p95:
            yield Fault(("max",), f"at least p95 ({self.p95:g})")


class ChoiceTokens(Part):
    """A few values with weights. Without weights every value is as likely; weights need not sum to 1."""

    kind: Literal["choice"] = "choice"
    values: tuple[Tokens, ...] = Field(min_length=1)
    weights: tuple[float, ...] | None = None

    @property
    def smallest(self) -> int:
        """The fewest tokens a draw can have."""
        return min(self._possible())

    @property
    def largest(self) -> int:
        """The most tokens a draw can have."""
        return max(self._possible())

    def _possible(self) -> tuple[int, ...]:
        if self.weights is None:
            return self.values
        return tuple(value for value, weight in zip(self.values, self.weights, strict=True) if weight > 0)

    def faults(self) -> Iterator[Fault]:
        """One weight for every value; none negative; not all zero."""
        if self.weights is None:
            return
        if len(self.weights) != len(self.values):
            yield Fault(("weights",), f"one weight for each of the {len(self.values)} values")
        elif min(self.weights) < 0 or not 0 < sum(self.weights) < float("inf"):
            yield Fault(("weights",), "numbers of at least 0 with a sum above 0")


TokenDistribution = Annotated[ConstantTokens | UniformTokens | LognormalTokens | ChoiceTokens, Field(discriminator="kind")]
