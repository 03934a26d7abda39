"""What a profile of speculation holds, and what follows from it by arithmetic alone.

A step of n requests takes ``step_s(n)``; with k draft tokens each ``verify_s(n, k)``, and drafting them ``draft_s(n, k)``.
Where only a share c of steps finds a guess (prompt lookup), a mean step gives c E(k) + 1 - c tokens a request and takes
c (verify + draft) + (1 - c) step seconds, and the number of tokens changes c (1 - c) times a step, each way for ``change_s``.
The gain is the tokens over the seconds, relative to one token in ``step_s``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any, Final

from setpoint.hardware.drafting import CostSource
from setpoint.policy.survival import SurvivalProfile, break_even_acceptance

WORTH_SAYING: Final = 0.02


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Measured seconds for one number of requests in a step. By draft length of each: ``verify_s[0]`` is the step without."""

    requests: int
    verify_s: Mapping[int, float]
    draft_s: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Of one kind of work. ``survival``: see ``SurvivalProfile``. ``drafted_share``: of the decode steps of a request, how many
    had a draft. ``drafts``: how many the figures rest on. ``drafter``: that they were measured with, ``None`` for whichever."""

    name: str
    survival: tuple[float, ...]
    drafted_share: float
    drafts: int
    drafter: str | None = None

    @property
    def profile(self) -> SurvivalProfile:
        """For simulation and planning."""
        return SurvivalProfile(self.survival)


@dataclass(frozen=True, slots=True)
class Gain:
    """Predicted at one batch: the best draft length (0: none pays) and its gain; what the longest would do; what acceptance a
    draft of the best (or shortest) length needs to pay, ``None`` if no acceptance is enough."""

    requests: int
    best_draft_tokens: int
    best_gain: float
    longest_gain: float
    break_even: float | None


@dataclass(frozen=True, slots=True)
class SpeculationProfile:
    """Everything that was measured, or predicted. ``change_s``: what a step costs more for another number of tokens.

    context_tokens, sources, left_out: of a prediction, the context of each request, where the costs come from, and the batches
    whose contexts do not fit into the cache.
    """

    model: str
    drafter: str
    draft_model: str | None
    acceptances: tuple[Acceptance, ...]
    costs: tuple[StepCosts, ...]
    change_s: float
    context_tokens: int | None = None
    sources: tuple[CostSource, ...] = ()
    left_out: tuple[int, ...] = ()

    def fixed_gain(self, acceptance: Acceptance, costs: StepCosts, draft_tokens: int) -> float | None:
        """Tokens a second with drafts of that length whatever they cost, over those without; ``None`` where it is not known."""
        known = draft_tokens in costs.verify_s and 0 < draft_tokens <= len(acceptance.survival)
        return gain(acceptance, costs, draft_tokens, self.change_s) if known else None

    def break_even(self, costs: StepCosts, draft_tokens: int) -> float | None:
        """The constant acceptance at which such drafts neither gain nor lose, one in every step; ``None``: there is none."""
        verify_s, draft_s = costs.verify_s[draft_tokens], costs.draft_s.get(draft_tokens, 0.0)
        return break_even_acceptance(draft_tokens, step_s=costs.verify_s[0], verify_s=verify_s, draft_s=draft_s)

    def gains(self, acceptance: Acceptance) -> list[Gain]:
        """One for each measured batch."""
        return [self._gain(acceptance, each) for each in self.costs]

    def verdict(self, acceptance: Acceptance) -> str:
        """In one sentence: up to which batch it pays and how much, and what drafting regardless would cost beyond."""
        gains = sorted(self.gains(acceptance), key=lambda each: each.requests)
        paying = [each for each in gains if each.best_draft_tokens]
        unbroken = list(takewhile(lambda each: each.best_draft_tokens, gains))
        costing = [each for each in gains if each.longest_gain < 1 - WORTH_SAYING and each not in paying]
        words = f"does not pay at any batch {'predicted' if self.sources else 'measured'}"
        if unbroken:
            most, last = max(unbroken, key=lambda each: each.best_gain), unbroken[-1]
            words = f"pays up to batch {last.requests}: {most.best_gain:.2g}x at batch {most.requests}"
            if last is not most:
                words += f", {last.best_gain:.2g}x at batch {last.requests}"
        apart = [f"{each.best_gain:.2g}x at batch {each.requests}" for each in paying if each not in unbroken]
        if apart:
            rest = ", ".join(apart)
            words = f"{words}; again {rest}" if unbroken else f"does not pay at batch {gains[0].requests}, but {rest}"
        if costing:
            first = costing[0]
            words += f"; always drafting would cost {1 - first.longest_gain:.0%} at batch {first.requests}"
        return words

    def to_json(self) -> str:
        """Measured figures and what follows from them."""
        told: dict[str, Any] = asdict(self)
        for row, acceptance in zip(told["acceptances"], self.acceptances, strict=True):
            del row["drafter"]  # The profile has one for all.
            row["gains"] = [asdict(each) for each in self.gains(acceptance)]
            row["verdict"] = self.verdict(acceptance)
        for row, costs in zip(told["costs"], self.costs, strict=True):
            row["break_even"] = {length: self.break_even(costs, length) for length in costs.verify_s if length}
        return json.dumps(told, indent=1)

    def _gain(self, acceptance: Acceptance, costs: StepCosts) -> Gain:
        lengths = [length for length in costs.verify_s if 0 < length <= len(acceptance.survival)]
        gains = {length: gain(acceptance, costs, length, self.change_s) for length in lengths}
        best = max(gains, key=lambda length: gains[length], default=0)
        pays = bool(gains) and gains[best] > 1 + WORTH_SAYING
        asked = best if pays else min(lengths, default=1)
        needed = None
        if lengths:
            needed = break_even_acceptance(
                asked, step_s=costs.verify_s[0], verify_s=costs.verify_s[asked], draft_s=costs.draft_s.get(asked, 0.0)
            )
        longest = gains[max(lengths)] if lengths else 1.0
        return Gain(costs.requests, best if pays else 0, gains[best] if pays else 1.0, longest, needed)


def gain(acceptance: Acceptance, costs: StepCosts, draft_tokens: int, change_s: float) -> float:
    """Tokens a second with drafts of ``draft_tokens`` wherever there is a guess, over those without drafts."""
    share = acceptance.drafted_share
    plain_s = costs.verify_s[0]
    widened_s = costs.verify_s[draft_tokens] + costs.draft_s.get(draft_tokens, 0.0)
    tokens = share * acceptance.profile.expected_tokens(draft_tokens) + (1 - share)
    seconds = share * widened_s + (1 - share) * plain_s + 2 * share * (1 - share) * change_s
    return tokens * plain_s / seconds


def survival_of(accepted_at_least: Sequence[int], drafted_at_least: Sequence[int]) -> tuple[float, ...]:
    """Shares by position, made not to rise where chance had it so; positions that nothing was drafted for are left out."""
    shares: list[float] = []
    for accepted, drafted in zip(accepted_at_least, drafted_at_least, strict=True):
        if not drafted:
            break
        shares.append(min(accepted / drafted, shares[-1] if shares else 1.0))
    return tuple(shares)
