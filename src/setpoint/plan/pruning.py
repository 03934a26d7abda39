"""What need not be simulated: shapes that have no room, or that no scheduler could make fast enough; and why, in words.

Bounds are optimistic, so that nothing is lost: no queue, no other request, and steps faster than predicted by ``SIGMAS``
standard errors. ``capacity``: weights or cache do not fit; ``latency``: one request alone is too slow; ``gpus``:
carrying the load takes more than allowed. ``cost`` is no bound but an estimate: in balance, without fluctuations, a
request costs ``DEARER`` times as much as on another shape of the same hardware.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np

from setpoint.hardware.step_time import StepTimer
from setpoint.plan.economy import most_replicas
from setpoint.plan.fluid import Timer, balance, capacity, step_s
from setpoint.plan.limits import Limit, limit_name, limit_number
from setpoint.plan.shadow import Bounds
from setpoint.plan.sketch import LoadSketch
from setpoint.plan.topology import Serving, Shape
from setpoint.policy.decisions import StepWork
from setpoint.report.format import seconds

SIGMAS = 2.0
DEARER = 1.7
LARGEST_BATCH = 512.0
MOST_HARDWARE = 6
MOST_DEARER = 1e6


@dataclass(frozen=True, slots=True)
class Pruned:
    """A shape that was not simulated, which bound it broke, by what factor, and a sentence without its subject.

    limit: of a latency bound, the limit that it breaks.
    """

    shape: Shape
    bound: str
    words: str
    excess: float
    limit: Limit | None = None


def no_room(shape: Shape, load: LoadSketch) -> Pruned | None:
    """Why the shape cannot hold one request, ``None`` if it can."""
    deployment = shape.deployment
    if shape.kv_tokens <= 0:
        held = deployment.model.weight_bytes(deployment.weight_precision) / deployment.devices / 1e9
        memory = deployment.accelerator.memory_bytes / 1e9
        words = f"would hold {held:.0f} GB of weights on each {memory:.0f} GB device and no cache beside them"
        return Pruned(shape, "capacity", words, max(1.01, held / memory))
    if shape.kv_tokens < load.largest_context:
        words = f"has room for {shape.kv_tokens:,} tokens of cache, and one request needs {load.largest_context:,}"
        return Pruned(shape, "capacity", words, load.largest_context / shape.kv_tokens)
    return None


def too_slow(shape: Shape, timer: Timer, step_error: float, load: LoadSketch, limits: tuple[Limit, ...]) -> Pruned | None:
    """Why not even a request alone keeps a limit, ``None`` if it may."""
    faster = math.exp(-SIGMAS * step_error)
    for limit in limits:
        if limit.percent is None or limit.metric == "queue_wait":
            continue
        least_s = faster * _floor_s(timer, load, limit.metric, limit.percent)
        if least_s > limit.limit:
            words = (
                f"takes at least {seconds(least_s, ' ')} for {limit_name(limit)} even with a request alone, "
                f"over the limit of {limit_number(limit, limit.limit)}"
            )
            return Pruned(shape, "latency", words, least_s / limit.limit, limit)
    return None


def _floor_s(timer: Timer, load: LoadSketch, metric: str, percent: float) -> float:
    """The percentile that requests would have if each were alone and its prompt computed in one step."""
    uncached = load.prompt_tokens - load.cached_tokens
    prompt_s = np.array([_prompt_s(timer, tokens, prompt) for tokens, prompt in _sampled(uncached, load.prompt_tokens)])
    if metric == "ttft":
        return float(np.percentile(prompt_s, percent))
    context = float(np.median(load.prompt_tokens))
    gap_s = step_s(timer, StepWork(1, 1, round(context), round(context)))
    if metric in ("itl", "tpot"):
        return gap_s
    answers = load.output_tokens[:: max(1, len(uncached) // len(prompt_s))][: len(prompt_s)]
    return float(np.percentile(prompt_s + gap_s * (answers - 1), percent))


def _sampled(uncached: np.ndarray, prompts: np.ndarray) -> list[tuple[float, float]]:
    every = max(1, len(uncached) // 64)
    return list(zip(uncached[::every].tolist(), prompts[::every].tolist(), strict=True))


def _prompt_s(timer: Timer, tokens: float, prompt: float) -> float:
    products = tokens * (prompt - tokens / 2)
    return step_s(timer, StepWork(max(1, round(tokens)), 1, round(prompt), round(products)))


def fewest_replicas(shape: Shape, serving: Serving, timer: Timer, step_error: float, load: LoadSketch, load_rps: float) -> int:
    """Replicas without which even the balance (``fluid``) at optimistic speed does not carry the load."""
    most_rps = capacity(timer, load, serving, shape.kv_tokens).rate_rps * math.exp(SIGMAS * step_error)
    return max(1, math.ceil(load_rps / most_rps))


def too_many(
    shape: Shape, serving: Serving, timer: Timer, step_error: float, load: LoadSketch, load_rps: float, bounds: Bounds
) -> Pruned | None:
    """Why the load takes more than is allowed, ``None`` if it may not."""
    needed = fewest_replicas(shape, serving, timer, step_error, load, load_rps)
    most = most_replicas(shape, bounds.max_gpus, bounds.max_usd_per_h)
    if needed <= most:
        return None
    words = f"needs at least {needed * shape.gpus} devices for the load, and the bounds allow {most * shape.gpus}"
    return Pruned(shape, "gpus", words, needed / max(most, 0.5))


def dearer(shapes: Sequence[tuple[Shape, Timer]], load: LoadSketch, limits: tuple[Limit, ...]) -> list[Pruned]:
    """Of each hardware the shapes on which a request would cost far more than on its best, and by how much."""
    best: dict[str, tuple[float, Shape]] = {}
    costs = [_device_s(shape, timer, load, limits) for shape, timer in shapes]
    for (shape, _), cost in zip(shapes, costs, strict=True):
        if shape.hardware not in best or cost < best[shape.hardware][0]:
            best[shape.hardware] = (cost, shape)
    found = []
    for (shape, _), cost in zip(shapes, costs, strict=True):
        least, other = best[shape.hardware]
        if cost > DEARER * least:
            words = f"would cost about {cost / least:.1f} times as much a request as {other.name}"
            found.append(Pruned(shape, "cost", words, cost / least))
    return found


def dearest(
    shapes: Sequence[tuple[Shape, StepTimer]], load: LoadSketch, limits: tuple[Limit, ...], left_out: Set[str]
) -> list[Pruned]:
    """All but the ``MOST_HARDWARE`` kinds of hardware on which a request costs least in balance, ``left_out`` apart.

    Kinds whose errors are all guesses are counted by themselves: they may look cheap, but no plan on them is sure.
    """
    left = [(shape, timer) for shape, timer in shapes if shape.name not in left_out]
    known = {shape.hardware for shape, timer in left if not timer.guess}
    return [
        *_beyond_the_cheapest([(shape, timer) for shape, timer in left if shape.hardware in known], load, limits),
        *_beyond_the_cheapest([(shape, timer) for shape, timer in left if shape.hardware not in known], load, limits),
    ]


def _beyond_the_cheapest(shapes: Sequence[tuple[Shape, Timer]], load: LoadSketch, limits: tuple[Limit, ...]) -> list[Pruned]:
    """The shapes of all kinds but the ``MOST_HARDWARE`` cheapest, compared with the cheapest."""
    costs: dict[str, tuple[float, Shape]] = {}
    for shape, timer in shapes:
        usd = _device_s(shape, timer, load, limits) * (1.0 if shape.usd_per_gpu_h is None else shape.usd_per_gpu_h)
        if shape.hardware not in costs or usd < costs[shape.hardware][0]:
            costs[shape.hardware] = (usd, shape)
    ranked = sorted(costs.values(), key=lambda each: each[0])
    dropped = {shape.hardware: usd for usd, shape in ranked[MOST_HARDWARE:]}
    if not dropped:
        return []
    least, best = ranked[0]
    return [
        Pruned(
            shape,
            "cost",
            f"would cost {_times(dropped[shape.hardware], least)} as much a request as {best.name}; name it with --hardware to "
            "have it looked at",
            min(MOST_DEARER, dropped[shape.hardware] / max(least, 1e-12)),
        )
        for shape, _ in shapes
        if shape.hardware in dropped
    ]


def _times(usd: float, least: float) -> str:
    """``about 2.3 times``; of what costs nothing nobody can say how many."""
    if least > 0:
        return f"about {usd / least:.1f} times"
    return "many times" if usd > 0 else "about 1.0 times"


def _device_s(shape: Shape, timer: Timer, load: LoadSketch, limits: tuple[Limit, ...]) -> float:
    """Seconds of a device that a request takes in balance, gaps between tokens being within their limits."""
    gap_s = min((limit.limit for limit in limits if limit.metric in ("itl", "tpot") and limit.is_latency), default=math.inf)
    low, high = 1.0, max(1.0, min(LARGEST_BATCH, shape.kv_tokens / load.mean_resident))
    if balance(timer, load, high).step_s > gap_s:
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if balance(timer, load, middle).step_s <= gap_s else (low, middle)
    return shape.gpus / balance(timer, load, low if low > 1.0 else high).rate_rps
