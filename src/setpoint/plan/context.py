"""When memory pressure bends latency: the time of a request against its context length, for a fixed number under way.

``N`` requests are under way on a replica (a closed system), each with ``c`` tokens of context that only it holds. While all
of them fit, ``B = N`` decode at once. Beyond ``c = K / N`` (``K`` tokens of cache) only ``K / c`` do, and the others wait or
are preempted. By Little's law a request then takes ``N`` over what the replica completes: ``N * o * t(B) / B``. Formula:
``fluid``; without fluctuations, so a real replica bends a little earlier. The uncached part of prompts is the profile's: what
grows is history that the cache holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from setpoint.plan.fluid import Timer, balance
from setpoint.plan.sketch import Floats, LoadSketch
from setpoint.plan.topology import Shape

POINTS = 33
LEAST_CONTEXT = 256
MOST_CONTEXT = 1 << 20


@dataclass(frozen=True, slots=True)
class ContextCurve:
    """Shapes [POINTS]: context tokens, seconds of a request, seconds between its tokens; NaN where one request does not fit.

    bends_at_tokens: the context from which not all of ``under_way`` fit.
    """

    shape: Shape
    under_way: float
    contexts: Floats
    request_s: Floats
    gap_s: Floats
    bends_at_tokens: float


def context_curve(
    shape: Shape, timer: Timer, load: LoadSketch, under_way: float, contexts: Sequence[float] | None = None
) -> ContextCurve:
    """The curve of a replica with ``under_way`` requests, up to the model's context length."""
    most = min(MOST_CONTEXT, max(shape.deployment.model.context_tokens, 2 * LEAST_CONTEXT))
    grid = np.geomspace(LEAST_CONTEXT, most, POINTS) if contexts is None else np.asarray(contexts, dtype=np.float64)
    request_s, gap_s = np.full(len(grid), np.nan), np.full(len(grid), np.nan)
    for place, context in enumerate(grid.tolist()):
        batch = min(under_way, shape.kv_tokens / context)
        if batch < 1.0 <= under_way:
            continue
        found = balance(timer, _with_context(load, context), batch)
        gap_s[place] = found.step_s
        request_s[place] = under_way / found.rate_rps
    return ContextCurve(shape, under_way, grid, request_s, gap_s, shape.kv_tokens / max(under_way, 1e-9))


def _with_context(load: LoadSketch, context: float) -> LoadSketch:
    """The same load, every decode reading ``context`` tokens on average."""
    uncached = np.array([min(load.mean_uncached, context)])
    output = np.array([load.mean_output])
    prompt = np.array([max(context - load.mean_output / 2, 1.0)])
    return replace(
        load,
        prompt_tokens=prompt,
        output_tokens=output,
        cached_tokens=np.maximum(prompt - uncached, 0.0),
        private_tokens=prompt,
    )
