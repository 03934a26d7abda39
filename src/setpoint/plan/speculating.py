"""Speculation as a dimension of the plan: what each drafter would gain on a shape at each batch, and the candidates with it.

Gain: tokens a second with drafts of k over those without, ``(c E(k) + 1 - c) t(n) / (c (t(n, k) + d(n, k)) + (1 - c) t(n))``:
E from the survival that was given (``policy/survival.py``), t and d from the step-time models of both models on that hardware
(``hardware/drafting.py``), c the share of steps that find a guess. That says where it is worth simulating; the candidates
themselves are simulated like all others. vLLM drafts as many tokens in every step: the best length at the finalist's batch.
setpoint decides in every step. Only finalists of the search get a variant: a shape that would hold with speculation alone is
looked at only if it got that far without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from setpoint.hardware.drafting import (
    CostSource,
    draft_deployment,
    drafting_s,
    paired_kv_tokens,
    pass_timer,
    verify_step_s,
)
from setpoint.hardware.model_facts import ModelFacts
from setpoint.hardware.step_time import StepTimer
from setpoint.plan.fluid import at_load, capacity
from setpoint.plan.search import Arm
from setpoint.plan.sketch import LoadSketch
from setpoint.plan.topology import Guesses, Scheduler, Serving, Shape
from setpoint.policy.configuration import SpeculationMode
from setpoint.policy.survival import SurvivalProfile, break_even_acceptance

BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LONGEST: Final = 15
WORTH: Final = 1.02


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may be tried: ``drafters``, their survival by position; ``draft``: the draft model's facts, ``name``: its source.

    ``share``: of the decode steps, how many find a guess in the text; a draft model always has one.
    """

    drafters: tuple[SpeculationMode, ...]
    survival: tuple[float, ...]
    share: float = 1.0
    draft: ModelFacts | None = None
    name: str | None = None

    def share_of(self, drafter: SpeculationMode) -> float:
        """Of the decode steps, how many have a guess of ``drafter``."""
        return 1.0 if drafter is SpeculationMode.DRAFT else self.share


@dataclass(frozen=True, slots=True)
class BatchGain:
    """At ``batch`` requests: the draft length that gains most (0: none does), its gain, and the constant acceptance at which
    drafts of that length (of one token where none gains) break even; ``None`` if none is enough."""

    batch: int
    draft_tokens: int
    gain: float
    break_even: float | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """A drafter on a shape, before anything is simulated. ``here``: at the batch of the finalist that it was looked at for."""

    shape: Shape
    scheduler: Scheduler
    drafter: SpeculationMode
    draft_model: str | None
    gains: tuple[BatchGain, ...]
    here: BatchGain
    sources: tuple[CostSource, ...]

    @property
    def pays_up_to(self) -> int | None:
        """The largest of ``BATCHES`` up to which it pays without a gap; ``None``: not even alone."""
        most = None
        for each in self.gains:
            if not each.draft_tokens:
                break
            most = each.batch
        return most


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of steps on a shape with a drafter. ``passes``: of the draft model, ``None`` where guesses are free."""

    verify: StepTimer
    passes: StepTimer | None
    context_tokens: int

    def gain_at(self, batch: int, profile: SurvivalProfile, share: float) -> BatchGain:
        """The best draft length at a batch."""
        plain_s = verify_step_s(self.verify, batch, 0, self.context_tokens)
        gains: dict[int, float] = {}
        for length in range(1, min(LONGEST, len(profile.survival)) + 1):
            tokens = share * profile.expected_tokens(length) + 1 - share
            gains[length] = tokens * plain_s / (share * self.widened_s(batch, length) + (1 - share) * plain_s)
        best = max(gains, key=lambda length: gains[length])
        pays = gains[best] > WORTH
        length = best if pays else 1
        needed = break_even_acceptance(length, step_s=plain_s, verify_s=self.widened_s(batch, length), draft_s=0.0)
        return BatchGain(batch, best if pays else 0, gains[best] if pays else 1.0, needed)

    def widened_s(self, batch: int, length: int) -> float:
        """A step with drafts of that length, drafting included."""
        return verify_step_s(self.verify, batch, length, self.context_tokens) + self._drafting_s(batch, length)

    def passes_share(self, batch: int, length: int) -> float:
        """Of such a step, how much the passes of the draft model are."""
        return self._drafting_s(batch, length) / self.widened_s(batch, length)

    def _drafting_s(self, batch: int, length: int) -> float:
        return 0.0 if self.passes is None else drafting_s(self.passes, batch, length, self.context_tokens)


def variants(allowed: Allowed, load: LoadSketch, load_rps: float, finalists: Sequence[Arm]) -> tuple[list[Arm], list[Outlook]]:
    """An arm for each finalist and drafter that could pay there, not simulated yet; and what was expected of each."""
    arms: list[Arm] = []
    outlooks: list[Outlook] = []
    for arm in finalists:
        for drafter in allowed.drafters:
            found = _with_drafter(allowed, drafter, load, load_rps, arm)
            if found is not None:
                outlooks.append(found[1])
                arms += [] if found[0] is None else [found[0]]
    return arms, outlooks


def _with_drafter(
    allowed: Allowed, drafter: SpeculationMode, load: LoadSketch, load_rps: float, arm: Arm
) -> tuple[Arm | None, Outlook] | None:
    """The arm with a drafter and its outlook; ``None`` where both models do not fit."""
    shape, draft = arm.shape, None
    if drafter is SpeculationMode.DRAFT:
        assert allowed.draft is not None, "a draft model was looked up with the requirement"
        draft = draft_deployment(shape.deployment, allowed.draft)
        shape = replace(shape, kv_tokens=paired_kv_tokens(shape.deployment, draft, context_tokens=load.typical_context))
        if shape.kv_tokens < load.largest_context:
            return None
    profile = SurvivalProfile(allowed.survival)
    passes = None if draft is None else pass_timer(draft)
    costs = Costs(arm.timer, passes, round(load.mean_context))
    share = allowed.share_of(drafter)
    here = costs.gain_at(_batch(arm, load, load_rps), profile, share)
    outlook = Outlook(
        shape=shape,
        scheduler=arm.serving.scheduler,
        drafter=drafter,
        draft_model=None if draft is None else draft.model.name,
        gains=tuple(costs.gain_at(batch, profile, share) for batch in BATCHES),
        here=here,
        sources=_sources(shape, arm.timer, passes, draft.model.name if draft else ""),
    )
    adaptive = arm.serving.scheduler is Scheduler.SETPOINT
    if not here.draft_tokens and not (adaptive and outlook.pays_up_to is not None):
        return None, outlook
    config = arm.serving.config.model_copy(
        update={
            "speculation": drafter,
            "draft_model": allowed.name if draft is not None else None,
            "max_draft_tokens": min(LONGEST, len(allowed.survival)),
            "draft_tokens": None if adaptive else here.draft_tokens,
        }
    )
    guesses = Guesses(allowed.survival, share, draft, here.draft_tokens or outlook.gains[0].draft_tokens)
    serving = Serving(arm.serving.scheduler, config, guesses)
    passes_share = costs.passes_share(here.batch, guesses.likely_tokens)
    found = Arm(shape, serving, arm.timer, arm.capacity_rps * here.gain, passes=passes, passes_share=passes_share)
    return found, outlook


def _batch(arm: Arm, load: LoadSketch, load_rps: float) -> int:
    """Requests that decode at once where the arm would run: at its knee, or at the load if that is less."""
    rate_rps = min(load_rps, arm.knee_rps) or load_rps
    found = at_load(arm.timer, load, arm.serving, arm.shape.kv_tokens, rate_rps)
    balance = found or capacity(arm.timer, load, arm.serving, arm.shape.kv_tokens)
    return max(1, round(balance.batch))


def _sources(shape: Shape, verify: StepTimer, passes: StepTimer | None, draft: str) -> tuple[CostSource, ...]:
    found = [CostSource("verifying", shape.deployment.model.name, verify.source, verify.relative_error, verify.guess)]
    if passes is not None:
        found.append(CostSource("drafting", draft, passes.source, passes.relative_error, passes.guess))
    return tuple(found)
