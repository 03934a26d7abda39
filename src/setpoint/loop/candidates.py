"""The short grid over the batching modes that ``setpoint tune --grid`` measures: what anybody would try by hand.

No batching, one static batch, continuous with a small and a large batch, and deadlines deciding. The loop chooses from a wider
space (``tuning/space.py``), in which these have the same names.
"""

from __future__ import annotations

from collections.abc import Mapping

from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.requirement import Requirement

WHOLE_PROMPTS_TOKENS = 2048


def candidates_for(requirement: Requirement) -> Mapping[str, ServingConfig]:
    """Configurations by name, in the order in which they are measured."""
    grid: dict[str, ServingConfig] = {
        "immediate": ServingConfig(mode=BatchingMode.IMMEDIATE, max_running=1, token_budget=WHOLE_PROMPTS_TOKENS),
        "static-8": _static(8),
        "continuous-8": _continuous(8, 512),
        "continuous-64": _continuous(64, WHOLE_PROMPTS_TOKENS),
    }
    if requirement.slo.latency or requirement.slo.spread:
        grid["setpoint-16"] = _setpoint(16)
    else:
        grid["static-32"] = _static(32)
    return grid


def _static(size: int) -> ServingConfig:
    return ServingConfig(mode=BatchingMode.STATIC, max_running=size, token_budget=WHOLE_PROMPTS_TOKENS, batch_wait_s=0.2)


def _continuous(running: int, budget: int) -> ServingConfig:
    return ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=running, token_budget=budget)


def _setpoint(running: int) -> ServingConfig:
    return ServingConfig(mode=BatchingMode.SETPOINT, max_running=running, token_budget=512)
