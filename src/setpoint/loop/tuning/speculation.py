"""Speculation in the loop: which candidates guess.

Where a requirement allows drafters and says what share of their guesses comes true (``setpoint profile-speculation`` measures
it), configurations of ``setpoint`` mode, of ``continuous`` where nothing limits latency, are candidates with each drafter too.
The controller of the engine decides in each step whether a guess pays, in the forecast (``forecast/drafting.py``) as in the
server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from setpoint.loop.speculation.asked import acceptance_stated
from setpoint.loop.speculation.candidates import LONGEST, speculating_configs
from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.requirement import Requirement

SUFFIXES: Final = {SpeculationMode.PROMPT_LOOKUP: "lookup", SpeculationMode.DRAFT: "draft"}
BUDGET_TOKENS: Final = 512


def speculating_space(requirement: Requirement, space: Mapping[str, ServingConfig]) -> dict[str, ServingConfig]:
    """Those of ``space`` that are worth it, with each drafter; none without a stated acceptance: nothing could be foretold."""
    stated = acceptance_stated(requirement.speculation, LONGEST)
    if stated is None:
        return {}
    longest = len(stated.survival)
    deadlines = bool(requirement.slo.latency or requirement.slo.spread)
    mode = BatchingMode.SETPOINT if deadlines else BatchingMode.CONTINUOUS
    found = {}
    for name, base in space.items():
        if base.mode is mode and base.token_budget == BUDGET_TOKENS:
            for config in speculating_configs(requirement, base):
                bounded = config.model_copy(update={"max_draft_tokens": min(config.max_draft_tokens, longest)})
                found[f"{name}-{SUFFIXES[config.speculation]}"] = bounded
    return found
