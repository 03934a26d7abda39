"""The request profile: how long prompts and outputs are, what prompts share, and how requests arrive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from pydantic import Field

from setpoint.requirement.arrival import Arrival, Burst
from setpoint.requirement.part import Fault, Part
from setpoint.requirement.sessions import Sessions
from setpoint.requirement.tokens import MAX_TOKENS, TokenDistribution

MAX_PREFIX_GROUPS = 100_000
MAX_MIX = 100


class RequestShape(Part):
    """What one kind of request looks like.

    shared_prefix_tokens are part of ``prompt_tokens``: the first tokens of every prompt are the same. With
    ``prefix_groups`` N there are N different prefixes, and each prompt has one of them, all alike often.
    prefix_hit_rate, instead: the share of every prompt's tokens that come from the beginning of one common text (one for
    each group), which is the hit rate of a prefix cache that has seen it and forgets nothing.
    sessions: the requests come in conversations; ``None``: every request stands alone.
    """

    prompt_tokens: TokenDistribution
    output_tokens: TokenDistribution
    shared_prefix_tokens: int = Field(default=0, ge=0, le=MAX_TOKENS)
    prefix_groups: int = Field(default=1, ge=1, le=MAX_PREFIX_GROUPS)
    prefix_hit_rate: float | None = Field(default=None, gt=0, lt=1)
    sessions: Sessions | None = None

    def faults(self) -> Iterator[Fault]:
        """The shared prefix fits the shortest prompt with a token to spare, and is said in one way."""
        smallest = self.prompt_tokens.smallest
        if self.shared_prefix_tokens >= smallest:
            yield Fault(
                ("shared_prefix_tokens",),
                f"less than the shortest possible prompt ({smallest}); raise prompt_tokens.min or shorten the prefix",
            )
        if self.prefix_hit_rate is not None and self.shared_prefix_tokens:
            yield Fault(("prefix_hit_rate",), "either prefix_hit_rate or shared_prefix_tokens, not both")
        if self.prefix_groups > 1 and not self.shared_prefix_tokens and self.prefix_hit_rate is None:
            yield Fault(("prefix_groups",), "1 without a prefix; say shared_prefix_tokens or prefix_hit_rate as well")


class MixPart(RequestShape):
    """One kind of request in a mix; ``weight`` is how often it arrives relative to the others (a session counts once)."""

    name: str = Field(min_length=1, max_length=100)
    weight: float = Field(default=1.0, gt=0, le=1e9)


class RequestProfile(RequestShape):
    """The requests and how they arrive.

    With a ``mix`` every request is of one of its parts, and the fields of the shape above are only what the parts took
    over where they said nothing of their own (or the part with the largest weight, where nothing was said).
    """

    streaming: bool = True
    arrival: Arrival
    burst: Burst | None = None
    mix: tuple[MixPart, ...] = Field(default=(), max_length=MAX_MIX)

    @property
    def shapes(self) -> tuple[MixPart, ...]:
        """The kinds of requests there are: the mix, or the one kind, whose name is empty."""
        if self.mix:
            return self.mix
        own = {name: getattr(self, name) for name in RequestShape.model_fields}
        return (MixPart.model_construct(name="", weight=1.0, **own),)

    @property
    def has_conversations(self) -> bool:
        """Whether requests follow each other: what is said between them is text, which no token ids could stand beside."""
        return any(shape.sessions is not None for shape in self.shapes)

    def at_rate(self, rate_rps: float) -> Self:
        """The same requests at a mean of ``rate_rps``, a burst being as much above it as it was."""
        burst = self.burst
        if burst is not None:
            burst = burst.model_copy(update={"rate_rps": burst.rate_rps * rate_rps / self.arrival.mean_rps})
        return self.model_copy(update={"arrival": self.arrival.at_mean(rate_rps), "burst": burst})

    @property
    def most_output_tokens(self) -> int:
        """The most tokens an answer can have."""
        return max(shape.output_tokens.largest for shape in self.shapes)

    def faults(self) -> Iterator[Fault]:
        """Those of the shape, unless a mix has shapes of its own; the burst is above the sustained rate; the parts of a mix
        have names of their own."""
        if not self.mix:
            yield from super().faults()
        if self.burst is not None and self.burst.rate_rps <= self.arrival.mean_rps:
            yield Fault(
                ("burst", "rate"),
                f"above the sustained rate ({self.arrival.mean_rps:g}/s), for example 3x (three times it)",
            )
        seen: set[str] = set()
        for index, part in enumerate(self.mix):
            if part.name in seen:
                yield Fault(("mix", str(index), "name"), f"a name of its own; {part.name} is there already")
            seen.add(part.name)
