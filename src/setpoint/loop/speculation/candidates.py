"""What ``--acceptance`` of ``setpoint tune`` and ``--speculation``, ``--draft-model`` and ``--acceptance`` of ``setpoint plan``
put over the requirement; and which serving configurations a requirement's speculation allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from setpoint.loop.errors import BadInput
from setpoint.loop.speculation.asked import ALLOWED, acceptance_of, drafters_of
from setpoint.loop.speculation.outcome import Acceptance
from setpoint.policy.configuration import ServingConfig, SpeculationMode
from setpoint.requirement import Requirement, Speculation
from setpoint.requirement.speculation import DRAFT, DRAFTERS

LONGEST = 15
OFF = "off"


class SpeculationOptions(Protocol):
    """What was typed."""

    @property
    def speculation(self) -> Sequence[str]: ...

    @property
    def draft_model(self) -> str | None: ...

    @property
    def acceptance(self) -> str | None: ...


def speculation_wished(options: SpeculationOptions, allowed: Speculation | None) -> Speculation | None:
    """The section with the options put in. Raises ``BadInput`` naming the option."""
    drafters = tuple(dict.fromkeys(name.strip() for text in options.speculation for name in text.split(",") if name.strip()))
    unknown = [name for name in drafters if name not in (*DRAFTERS, OFF)]
    if unknown:
        raise BadInput(f"--speculation {unknown[0]}: allowed: {', '.join(DRAFTERS)}, or off")
    if OFF in drafters:
        if len(drafters) > 1:
            raise BadInput("--speculation: found off beside a drafter; give one or the other")
        return None
    drafters = drafters or (allowed.drafters if allowed is not None else ())
    shares, share = (None, 1.0) if allowed is None else (allowed.acceptance, allowed.drafted_share)
    if options.acceptance is not None and drafters:
        given = acceptance_of(options.acceptance, LONGEST, allowed)
        wished, drafters = drafters, drafters_of(given, options.acceptance, drafters)
        if options.speculation and drafters != wished:
            known = drafters[0]
            raise BadInput(f"--acceptance {options.acceptance}: was measured with {known}, give no other in --speculation")
        shares, share = _shares(given), given.drafted_share
    model = options.draft_model or (allowed.draft_model if allowed is not None and DRAFT in drafters else None)
    if not drafters:
        for name, value in (("draft-model", options.draft_model), ("acceptance", options.acceptance)):
            if value is not None:
                raise BadInput(f"--{name}: only read with --speculation; give that too, such as --speculation prompt-lookup")
        return None
    if DRAFT in drafters and model is None:
        raise BadInput("--speculation draft: needs a second, smaller model: give it with --draft-model")
    if DRAFT not in drafters and model is not None:
        raise BadInput("--draft-model: prompt-lookup has none; leave it out, or give --speculation draft")
    if options.speculation and shares is None:
        raise BadInput(f"--speculation {','.join(drafters)}: acceptance cannot be predicted, give --acceptance: {ALLOWED}")
    return Speculation(drafters=drafters, draft_model=model, acceptance=shares, drafted_share=share)


def with_acceptance(requirement: Requirement, text: str | None) -> Requirement:
    """``requirement`` with what ``--acceptance`` says, if it was typed. Raises ``BadInput`` that names the option.

    Of its drafters those stay that the acceptance speaks of: of the others nothing could be foretold.
    """
    if text is None:
        return requirement
    allowed = requirement.speculation
    if allowed is None:
        raise BadInput("--acceptance: the requirement has no speculation section; add one, such as drafters: prompt-lookup")
    given = acceptance_of(text, LONGEST, allowed)
    drafters = drafters_of(given, text, allowed.drafters)
    changes = {
        "drafters": drafters,
        "draft_model": allowed.draft_model if DRAFT in drafters else None,
        "acceptance": _shares(given),
        "drafted_share": given.drafted_share,
    }
    return requirement.model_copy(update={"speculation": allowed.model_copy(update=changes)})


def _shares(given: Acceptance) -> tuple[float, ...]:
    """Survival by position as a requirement states it."""
    if len(given.survival) == 1:
        return (*given.survival, 0.0)  # One position is known, not the chance of every one.
    return given.survival


def speculating_configs(requirement: Requirement, base: ServingConfig) -> list[ServingConfig]:
    """``base`` with each drafter that the requirement allows, as far as pays in every step; none where it allows none."""
    allowed = requirement.speculation
    if allowed is None:
        return []
    found = []
    for drafter in allowed.drafters:
        model = allowed.draft_model if drafter == DRAFT else None
        found.append(
            base.model_copy(update={"speculation": SpeculationMode(drafter), "draft_model": model, "draft_tokens": None})
        )
    return found
