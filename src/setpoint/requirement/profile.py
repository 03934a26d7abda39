"""The request profile: how long prompts and outputs are, whether answers stream, and how requests arrive."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from setpoint.requirement.part import Fault, Part

MAX_TOKENS = 1_000_000
MAX_RATE_RPS = 100_000.0
MAX_BURST_S = 86_400.0

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


class ArrivalProcess(StrEnum):
    """How requests arrive when nobody waits for answers (open loop)."""

    CONSTANT = "constant"
    POISSON = "poisson"
    GAMMA = "gamma"


class Arrival(Part):
    """Arrivals of the sustained phase. ``cv`` is the coefficient of variation of the gaps (gamma only)."""

    process: ArrivalProcess = ArrivalProcess.POISSON
    rate_rps: float = Field(gt=0, le=MAX_RATE_RPS)
    cv: float = Field(default=1.0, gt=0, le=100)

    def faults(self) -> Iterator[Fault]:
        """``cv`` belongs to gamma arrivals; the others have their own."""
        if self.cv != 1.0 and self.process is not ArrivalProcess.GAMMA:
            yield Fault(("cv",), f"no cv with {self.process.value} arrivals; write process: gamma to choose it")


class Burst(Part):
    """A burst on top of the sustained load: total rate while it lasts, and how long."""

    rate_rps: float = Field(gt=0, le=MAX_RATE_RPS)
    duration_s: float = Field(gt=0, le=MAX_BURST_S)


class RequestProfile(Part):
    """Distribution of prompt tokens, output tokens, shared prefix, streaming, arrival process.

    ``shared_prefix_tokens`` are part of ``prompt_tokens``: the first tokens of every prompt are the same.
    """

    prompt_tokens: TokenDistribution
    output_tokens: TokenDistribution
    shared_prefix_tokens: int = Field(default=0, ge=0, le=MAX_TOKENS)
    streaming: bool = True
    arrival: Arrival
    burst: Burst | None = None

    def faults(self) -> Iterator[Fault]:
        """The shared prefix fits the shortest prompt with a token to spare; the burst is above the sustained rate."""
        smallest = self.prompt_tokens.smallest
        if self.shared_prefix_tokens >= smallest:
            yield Fault(
                ("shared_prefix_tokens",),
                f"less than the shortest possible prompt ({smallest}); raise prompt_tokens.min or shorten the prefix",
            )
        if self.burst is not None and self.burst.rate_rps <= self.arrival.rate_rps:
            yield Fault(
                ("burst", "rate"),
                f"above the sustained rate ({self.arrival.rate_rps:g}/s), for example 3x (three times it)",
            )
