"""What guesses in a forecast of a configuration that speculates: how often it is right, and what a draft model costs here."""

from __future__ import annotations

from functools import lru_cache

from setpoint.hardware.accelerator import THIS_MACHINE, accelerator
from setpoint.hardware.deployment import Deployment
from setpoint.hardware.drafting import draft_deployment, pass_timer
from setpoint.hardware.model_facts import model_facts
from setpoint.loop.speculation.asked import acceptance_stated
from setpoint.loop.speculation.candidates import LONGEST
from setpoint.policy.configuration import ServingConfig, SpeculationMode
from setpoint.policy.survival import constant_acceptance
from setpoint.requirement import Requirement
from setpoint.simulate.acceptance import AcceptedDrafts
from setpoint.simulate.drafter import Drafting
from setpoint.simulate.timing import StepTimer


def drafting_of(requirement: Requirement, config: ServingConfig) -> Drafting | None:
    """What guesses in a forecast of ``config``, ``None`` for nothing. Raises ``HardwareError`` for an unknown draft model.

    Without a stated acceptance nothing is taken to come true.
    """
    if config.speculation is SpeculationMode.OFF:
        return None
    stated = acceptance_stated(requirement.speculation, LONGEST)
    if stated is None:
        accepted = AcceptedDrafts(constant_acceptance(0.0, LONGEST))
    else:
        accepted = AcceptedDrafts(stated.profile, stated.drafted_share)
    if config.draft_model is None:
        return Drafting(accepted)
    return Drafting(accepted, _passes(requirement.model.source, config.draft_model))


@lru_cache(maxsize=16)
def _passes(model: str, draft: str) -> StepTimer:
    facts = model_facts(model)
    target = Deployment(facts, accelerator(THIS_MACHINE), 1, "setpoint", facts.native_precision)
    return pass_timer(draft_deployment(target, model_facts(draft)))
