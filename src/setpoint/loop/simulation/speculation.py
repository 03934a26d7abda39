"""Speculation in ``setpoint simulate``: from options and a requirement to what drafts, how well, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from setpoint.engine.speculation.draft import READ_TOKENS
from setpoint.hardware.deployment import Deployment, kv_capacity_tokens
from setpoint.hardware.drafting import CostSource, draft_deployment, paired_kv_tokens, pass_timer
from setpoint.hardware.errors import HardwareError
from setpoint.hardware.model_facts import model_facts
from setpoint.loop.errors import BadInput
from setpoint.loop.speculation.asked import ALLOWED, acceptance_of, acceptance_stated, drafters_of
from setpoint.loop.speculation.outcome import Acceptance
from setpoint.policy.configuration import SpeculationMode
from setpoint.requirement import Requirement
from setpoint.simulate.acceptance import AcceptedDrafts
from setpoint.simulate.drafter import WHOLE_TEXT, Drafting
from setpoint.simulate.run import Flavour

if TYPE_CHECKING:
    from setpoint.commands.simulate import SystemFlags

DEFAULT_LONGEST: Final = 15


@dataclass(frozen=True, slots=True)
class Guessing:
    """``changes``: of the serving configuration. ``draft``: the draft model beside the model, ``None`` for prompt lookup."""

    drafting: Drafting | None = None
    draft: Deployment | None = None
    acceptance: Acceptance | None = None
    changes: dict[str, Any] = field(default_factory=dict)

    def kv_tokens(self, deployment: Deployment, context_tokens: float | None = None) -> int:
        """Tokens of cache that are left for requests, typically of ``context_tokens``."""
        if self.draft is not None:
            return paired_kv_tokens(deployment, self.draft, context_tokens=context_tokens)
        return kv_capacity_tokens(deployment, context_tokens=context_tokens)

    @property
    def source(self) -> CostSource | None:
        """Where the cost of drafting comes from; ``None`` where it is free."""
        if self.draft is None or self.drafting is None or self.drafting.passes is None:
            return None
        timer = self.drafting.passes
        return CostSource("drafting", self.draft.model.name, timer.source, timer.relative_error, timer.guess)


def guessing_of(deployment: Deployment, requirement: Requirement, flags: SystemFlags) -> Guessing:
    """What the options ask for; what they leave out is the requirement's. Raises ``BadInput`` that names the option."""
    mode = _mode(flags)
    if mode is SpeculationMode.OFF:
        return Guessing()
    most = flags.max_draft_tokens or DEFAULT_LONGEST
    longest = flags.draft_tokens or most
    if flags.acceptance is None:
        acceptance = acceptance_stated(requirement.speculation, longest)
    else:
        acceptance = acceptance_of(flags.acceptance, longest, requirement.speculation)
        drafters_of(acceptance, flags.acceptance, (mode.value,))
    if acceptance is None:
        raise BadInput(f"--speculation {mode}: acceptance cannot be simulated, give --acceptance: {ALLOWED}")
    fixed = _fixed_length(flags, acceptance)
    draft = _draft(deployment, requirement, flags) if mode is SpeculationMode.DRAFT else None
    if draft is not None:
        acceptance = replace(acceptance, drafted_share=1.0)  # A draft model always has a guess.
    read = WHOLE_TEXT if flags.engine == Flavour.VLLM else READ_TOKENS
    accepted = AcceptedDrafts(acceptance.profile, acceptance.drafted_share)
    drafting = Drafting(accepted, None if draft is None else pass_timer(draft), read)
    changes = {
        "speculation": mode,
        "draft_model": None if draft is None else draft.model.name,
        "max_draft_tokens": min(most, len(acceptance.survival)),
        "draft_tokens": fixed,
    }
    return Guessing(drafting, draft, acceptance, changes)


def _mode(flags: SystemFlags) -> SpeculationMode:
    text = flags.speculation or SpeculationMode.OFF.value
    try:
        mode = SpeculationMode(text)
    except ValueError:
        raise BadInput(f"--speculation {text}: allowed are {', '.join(SpeculationMode)}") from None
    if mode is SpeculationMode.OFF:
        for name in ("draft_model", "acceptance", "draft_tokens", "max_draft_tokens"):
            if getattr(flags, name) is not None:
                raise BadInput(
                    f"--{name.replace('_', '-')}: only read with --speculation prompt-lookup or draft; give that too"
                )
    elif mode is SpeculationMode.PROMPT_LOOKUP and flags.draft_model is not None:
        raise BadInput("--draft-model: prompt-lookup has none; leave it out, or give --speculation draft")
    return mode


def _fixed_length(flags: SystemFlags, acceptance: Acceptance) -> int | None:
    known = len(acceptance.survival)
    if flags.draft_tokens is not None and flags.draft_tokens > known:
        raise BadInput(
            f"--draft-tokens {flags.draft_tokens}: --acceptance says nothing beyond position {known}; give at most that"
        )
    if flags.draft_tokens is None and flags.engine == Flavour.VLLM:
        raise BadInput("--engine vllm: it drafts as many tokens in every step; say how many with --draft-tokens, such as 3")
    return flags.draft_tokens


def _draft(deployment: Deployment, requirement: Requirement, flags: SystemFlags) -> Deployment:
    allowed = requirement.speculation
    name = flags.draft_model or (None if allowed is None else allowed.draft_model)
    if name is None:
        raise BadInput("--speculation draft: needs a second, smaller model: give it with --draft-model")
    try:
        return draft_deployment(deployment, model_facts(name))
    except HardwareError as error:
        raise BadInput(f"--draft-model {name}: {error}") from error
