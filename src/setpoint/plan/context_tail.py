"""Requests that are too long for the model: a server refuses each, so no hardware meets a limit that they alone break."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from setpoint.plan.errors import PlanError
from setpoint.plan.limits import Limit, limit_name
from setpoint.plan.sketch import LoadSketch
from setpoint.record import Phase


def check_tail(load: LoadSketch, context_tokens: int, limits: Sequence[Limit], where: str) -> None:
    """Raise ``PlanError`` if more prompts fill ``context_tokens`` than a limit lets fail; it names both, and ``where``."""
    share = float(np.mean(load.prompt_tokens >= context_tokens))
    allowed = {limit: _may_fail(limit) for limit in limits if limit.phase is Phase.SUSTAINED}
    strictest = min((limit for limit in allowed if allowed[limit] < share), key=lambda each: allowed[each], default=None)
    if strictest is not None:
        raise PlanError(
            f"{where}: {share:.2%} of the profile's prompts do not fit a context of {context_tokens:,} tokens, and"
            f" {limit_name(strictest)} lets at most {allowed[strictest]:.2%} fail; shorten the profile's tail or take a longer"
            " context"
        )


def _may_fail(limit: Limit) -> float:
    """The share of requests that may miss a limit, 1 where it is not of that kind."""
    if limit.metric in ("ttft", "tpot", "e2e") and limit.percent is not None:
        return 1.0 - limit.percent / 100.0
    return 1.0 - limit.limit if limit.metric == "goodput_fraction" else 1.0
