"""Which serving configurations a requirement could be served with on this machine: the wide space that is only forecast.

Modes, running limits and token budgets in steps of two to four. The names of ``candidates.py`` mean the same here. Where the
requirement limits no latency there are no deadlines to decide by, so ``setpoint`` is left out and larger batches are in. Where
it allows speculation, some are there with drafts too (``speculation.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from setpoint.loop.candidates import WHOLE_PROMPTS_TOKENS, candidates_for
from setpoint.loop.tuning.speculation import speculating_space
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.requirement import Requirement

STATIC_SIZES, STATIC_WAITS_S = (4, 8, 16, 32), (0.2, 0.05)
RUNNING, BUDGETS = (4, 8, 16, 32, 64), (128, 512, WHOLE_PROMPTS_TOKENS)
SETPOINT_RUNNING, SETPOINT_BUDGETS = (8, 16, 32, 64), (128, 512)
LARGE_RUNNING = (96, 128)


def space_for(requirement: Requirement) -> Mapping[str, ServingConfig]:
    """Configurations by name, those of the short grid first; no configuration is there twice."""
    found = dict(candidates_for(requirement))
    for name, config in _wide(requirement):
        if config not in found.values():
            found[name] = config
    return found | speculating_space(requirement, found)


def _wide(requirement: Requirement) -> list[tuple[str, ServingConfig]]:
    wide: list[tuple[str, ServingConfig]] = []
    deadlines = bool(requirement.slo.latency or requirement.slo.spread)
    for wait_s in STATIC_WAITS_S:
        for size in STATIC_SIZES:
            config = ServingConfig(
                mode=BatchingMode.STATIC, max_running=size, token_budget=WHOLE_PROMPTS_TOKENS, batch_wait_s=wait_s
            )
            wide.append(
                (f"static-{size}" if wait_s == STATIC_WAITS_S[0] else f"static-{size}-wait{wait_s * 1e3:.0f}ms", config)
            )
    sizes = RUNNING if deadlines else (*RUNNING, *LARGE_RUNNING)
    wide += [_named(BatchingMode.CONTINUOUS, running, budget) for running, budget in product(sizes, BUDGETS)]
    if deadlines:
        both = product(SETPOINT_RUNNING, SETPOINT_BUDGETS)
        wide += [_named(BatchingMode.SETPOINT, running, budget) for running, budget in both]
    return wide


def _named(mode: BatchingMode, running: int, budget: int) -> tuple[str, ServingConfig]:
    return f"{mode}-{running}x{budget}", ServingConfig(mode=mode, max_running=running, token_budget=budget)
