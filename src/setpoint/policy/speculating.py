"""A policy that also speculates: another policy decides everything else, a controller the drafts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from setpoint.policy.decisions import Admit, Policy, Reason, Reject, StepPlan, StepResult, StepWork
from setpoint.policy.speculation import NO_DRAFTS, Drafts
from setpoint.policy.verify_time import DraftTime
from setpoint.policy.views import RequestView, StepView, SystemView


class DraftChooser(Protocol):
    """What decides draft lengths. ``drafting``: what it learned of how long drafting takes."""

    @property
    def drafting(self) -> DraftTime: ...

    def decide(self, step: StepView) -> Drafts:
        """Draft lengths for a step in which everybody decodes."""
        ...

    def hear(self, step: StepView) -> None:
        """What became of free guesses, in a step that cannot have drafts."""
        ...

    def observe(self, result: StepResult) -> None:
        """What a step really took and gave."""
        ...

    def learn(self, work: StepWork, seconds: float, drafted: int) -> None:
        """What a step of a warm-up took, of whose tokens ``drafted`` were drafts."""
        ...

    def learn_drafting(self, rounds: int, drafted: int, read: int, seconds: float) -> None:
        """What drafting took in a warm-up, from its rounds, the tokens drafted and those read before."""
        ...


class FixedDrafts:
    """Always as many tokens as can be drafted, up to ``draft_tokens``, whatever they cost: for comparison."""

    def __init__(self, draft_tokens: int) -> None:
        self._draft_tokens = draft_tokens
        self.drafting = DraftTime()
        self._behind: dict[int, int] = {}
        self._reads: tuple[int, ...] = ()

    def decide(self, step: StepView) -> Drafts:
        """The same for everybody, in every step without prompts; whose text is not read yet is read for."""
        self._reads = ()
        if step.drafts is None or self._draft_tokens == 0:
            return Drafts(NO_DRAFTS, 1.0, "none_possible")
        ids, most_tokens, ready = step.running.ids, step.drafts.most_tokens, step.drafts.ready
        pairs = zip(ids[ready].tolist(), most_tokens[ready].tolist(), strict=True)
        tokens = {i: min(most, self._draft_tokens) for i, most in pairs if most}
        self._behind = dict(zip(ids.tolist(), step.drafts.behind_tokens.tolist(), strict=True))
        self._reads = tuple(ids[~ready & (most_tokens > 0)].tolist())
        return Drafts(tokens, 1.0, "fixed", self._reads)

    def hear(self, step: StepView) -> None:
        """Nothing is learned."""

    def observe(self, result: StepResult) -> None:
        """Only what drafting takes is learned, for others: it decides nothing here."""
        reads = self._reads if result.draft_s > 0 else ()
        if result.drafted or reads:
            self.drafting.learn(result, self._behind, reads)

    def learn(self, work: StepWork, seconds: float, drafted: int) -> None:
        """Nothing is learned."""

    def learn_drafting(self, rounds: int, drafted: int, read: int, seconds: float) -> None:
        """As ``observe``."""
        self.drafting.observe(rounds, drafted, read, seconds)


class SpeculatingPolicy:
    """``inner`` with drafts chosen by ``chooser``. A plan with drafts says how many and what they are predicted to gain.

    token_budget: most new tokens in a step, drafts included. A step with prompts has no drafts: it is long already, and whoever
    sent the prompt is waiting for it. So nothing is decided where somebody is foreseen to join; where that was foreseen wrongly
    (``_first_to_join``), whoever makes up the step leaves the drafts out.
    """

    def __init__(self, inner: Policy, chooser: DraftChooser, *, token_budget: int) -> None:
        self.inner = inner
        self.chooser = chooser
        self._token_budget = token_budget
        self._foreseen: int | None = None

    def admit(self, request: RequestView, system: SystemView) -> Admit | Reject:
        """As ``inner`` does: its forecasts know nothing of drafts, which only make things faster."""
        return self.inner.admit(request, system)

    def plan(self, step: StepView) -> StepPlan:
        """The plan of ``inner`` and the drafts beside it, which stand for one step."""
        plan = self.inner.plan(step)
        if step.drafts is None or step.running.prefill_tokens.any():
            return plan
        plan = replace(plan, valid_for_steps=1)
        if self._foresees_join(plan, step):
            self.chooser.hear(step)
            return plan
        drafts = self.chooser.decide(step)
        plan = replace(plan, draft_reads=drafts.reads)
        tokens = _within(drafts.tokens, self._token_budget - len(step.running))
        if not tokens:
            return plan
        operands = {**plan.reason.operands, "drafts": sum(tokens.values()), "draft_gain": drafts.gain}
        return replace(plan, draft_tokens=tokens, reason=Reason(plan.reason.code, operands))

    def observe(self, result: StepResult) -> None:
        """The chooser first: it compares with what the step-time model said before the step."""
        self.chooser.observe(result)
        self.inner.observe(result)

    def _foresees_join(self, plan: StepPlan, step: StepView) -> bool:
        """Whether somebody joins in this step; who was foreseen to and still waits is not foreseen again, until it has run."""
        if self._foreseen is not None and (step.running.ids == self._foreseen).any():
            self._foreseen = None
        first = _first_to_join(plan, step)
        if first is None or first == self._foreseen:
            return False
        self._foreseen = first
        return True


def _first_to_join(plan: StepPlan, step: StepView) -> int | None:
    """Who of those that wait is the first to join, by the rule of ``engine/assembly.py``; ``None``: nobody can.

    It takes a place, blocks for the prompt, and one more for each running request. Not seen from here: blocks that decodes are
    about to take, and blocks of the prompt's prefix that are cached and held by nobody.
    """
    if not plan.order or plan.prefill_budget_tokens <= 0 or len(step.running) >= plan.max_running:
        return None
    place = np.flatnonzero(step.waiting.ids == plan.order[0])
    if not len(place):
        return None
    needed = -(-int(step.waiting.prefill_tokens[place[0]]) // step.kv.block_tokens)
    left = step.kv.free_blocks - needed
    return plan.order[0] if left >= len(step.running) else None


def _within(tokens: Mapping[int, int], most: int) -> dict[int, int]:
    """Draft lengths of at most ``most`` tokens together: the later ones give way."""
    kept = {}
    for request_id, count in tokens.items():
        if most <= 0:
            break
        kept[request_id] = min(count, most)
        most -= count
    return kept
