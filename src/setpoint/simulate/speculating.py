"""A simulated engine's speculation put together: its speculator, and what its policy is shown before the first request."""

from __future__ import annotations

from setpoint.engine.simulated import VirtualClock
from setpoint.engine.speculation.building import most_drafting
from setpoint.engine.warm_up import CONTEXT_TOKENS, DRAFT_LENGTHS, READING, drafting_counts
from setpoint.policy.configuration import ServingConfig
from setpoint.policy.decisions import Policy, StepWork
from setpoint.policy.speculating import SpeculatingPolicy
from setpoint.simulate.drafter import Drafting, ProfiledDrafter, pass_s
from setpoint.simulate.drafting_loop import CountingSpeculator
from setpoint.simulate.timing import Overheads, StepTimer


def speculator_of(drafting: Drafting, config: ServingConfig, clock: VirtualClock, *, seed: int) -> CountingSpeculator:
    """As ``engine/speculation/building.py`` bounds it."""
    drafter = ProfiledDrafter(drafting, clock, seed=seed, most_tokens=config.longest_draft_tokens)
    return CountingSpeculator(drafter, clock, most_tokens=config.longest_draft_tokens, most_running=most_drafting(config))


def teach_drafts(policy: Policy, drafting: Drafting, config: ServingConfig, timer: StepTimer, overheads: Overheads) -> None:
    """What the engine's warm-up shows a policy (``engine/warm_up.py``): steps with drafts, and drafting, of the usual sizes."""
    if not isinstance(policy, SpeculatingPolicy):
        return
    longest = config.longest_draft_tokens
    last = -1
    for decodes in drafting_counts(config):
        for drafted in sorted({0, *(length for length in DRAFT_LENGTHS if length < longest), longest}):
            each = 1 + drafted
            context = CONTEXT_TOKENS + drafted
            work = StepWork(decodes * each, decodes, decodes * context, decodes * each * context)
            for _ in range(2):
                change_s = overheads.change_s if work.tokens != last else 0.0
                policy.chooser.learn(work, pass_s(timer, work) + change_s, decodes * drafted)
                last = work.tokens
    if drafting.passes is None:
        return
    for count in drafting_counts(config)[:READING]:
        text = StepWork(count * CONTEXT_TOKENS, count, count * CONTEXT_TOKENS, count * CONTEXT_TOKENS**2)
        policy.chooser.learn_drafting(1, count, (CONTEXT_TOKENS - 1) * count, pass_s(drafting.passes, text))
    length = min(4, longest)
    for count in drafting_counts(config):
        # The first pass reads what a text gained, three tokens of it, the others a token each.
        first = StepWork(3 * count, count, count * CONTEXT_TOKENS, 3 * count * CONTEXT_TOKENS)
        later = StepWork(count, count, count * CONTEXT_TOKENS, count * CONTEXT_TOKENS)
        seconds = pass_s(drafting.passes, first) + (length - 1) * pass_s(drafting.passes, later)
        policy.chooser.learn_drafting(length, length * count, 2 * count, seconds)
