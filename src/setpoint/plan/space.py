"""The candidate space: shapes (accelerator x tensor parallel x precision), serving configurations (mode x budget x batch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from setpoint.hardware.accelerator import Accelerator
from setpoint.hardware.deployment import Deployment, kv_capacity_tokens
from setpoint.hardware.model_facts import ModelFacts
from setpoint.plan.topology import Scheduler, Serving, Shape
from setpoint.policy.configuration import BatchingMode, ServingConfig

PARALLEL = (1, 2, 4, 8)
BUDGETS = (512, 2048, 8192)
RUNNING = (32, 128, 512)
STATIC_SIZES = (8, 32)
STATIC_WAIT_S = 0.2
MAX_WAITING = 1024
UNBOUNDED_WAITING = 1 << 31
"""vLLM's own queue has no bound unless it is given one."""

CPU_BUDGETS = (128, 512, 2048)
CPU_RUNNING = (8, 16, 64)
BLOCK_TOKENS = {"vllm": 16, "setpoint": 32}
OWN_ENGINE = "this-machine"


@dataclass(frozen=True, slots=True)
class Choices:
    """What shapes are made of. Precisions: names that ``ModelFacts.weight_bytes`` knows."""

    accelerators: Sequence[Accelerator]
    prices: dict[str, float | None]
    parallel: Sequence[int]
    weight_precisions: Sequence[str]
    kv_precisions: Sequence[str]
    max_gpus: int | None = None
    memory_share: float = 0.9


def portable(device: Accelerator) -> Accelerator:
    """The same with a mapping that can be sent to another process."""
    return replace(device, flops_per_s=dict(device.flops_per_s))


def shapes_of(model: ModelFacts, choices: Choices, context_tokens: float | None = None) -> list[Shape]:
    """Every shape within the bounds, also those whose cache has no room: what does not fit is told, not left out.

    context_tokens: of a typical request, which says how much windows and states take (``kv_capacity_tokens``).
    More than one device needs a link between them; a precision that an accelerator cannot multiply in is still stored in it.
    """
    shapes = []
    for device in choices.accelerators:
        own = device.name == OWN_ENGINE
        for parallel in choices.parallel:
            if parallel > 1 and (own or not device.link_bytes_per_s or not model.can_be_split(parallel)):
                continue
            if choices.max_gpus is not None and parallel > choices.max_gpus:
                continue
            for weights in choices.weight_precisions:
                for cache in choices.kv_precisions:
                    engine = "setpoint" if own else "vllm"
                    deployment = Deployment(model, device, parallel, engine, weights, cache)
                    room = kv_capacity_tokens(deployment, memory_share=choices.memory_share, context_tokens=context_tokens)
                    shapes.append(Shape(deployment, choices.prices.get(device.name), room))
    return shapes


def servings_for(shape: Shape, *, deadlines: bool, schedulers: Sequence[Scheduler] = tuple(Scheduler)) -> list[Serving]:
    """The serving configurations worth trying on a shape.

    deadlines: whether the requirement has any limit on latency; without one the ``setpoint`` mode has nothing to decide by.
    """
    own = shape.hardware == OWN_ENGINE
    budgets, running = (CPU_BUDGETS, CPU_RUNNING) if own else (BUDGETS, RUNNING)
    cache = max(64, shape.kv_tokens)
    found = []

    def add(scheduler: Scheduler, mode: BatchingMode, most: int, budget: int) -> None:
        config = ServingConfig(
            mode=mode,
            max_running=most,
            token_budget=budget,
            batch_wait_s=STATIC_WAIT_S,
            max_waiting=UNBOUNDED_WAITING if scheduler is Scheduler.VLLM else MAX_WAITING,
            kv_cache_tokens=cache,
        )
        found.append(Serving(scheduler, config))

    for budget in budgets:
        for most in running:
            if most > budget:
                continue
            if not own and Scheduler.VLLM in schedulers:
                add(Scheduler.VLLM, BatchingMode.CONTINUOUS, most, budget)
            if Scheduler.SETPOINT in schedulers:
                add(Scheduler.SETPOINT, BatchingMode.SETPOINT if deadlines else BatchingMode.CONTINUOUS, most, budget)
                if own and deadlines:
                    add(Scheduler.SETPOINT, BatchingMode.CONTINUOUS, most, budget)
    if Scheduler.SETPOINT in schedulers:
        add(Scheduler.SETPOINT, BatchingMode.IMMEDIATE, 1, budgets[-1])
        for size in STATIC_SIZES:
            add(Scheduler.SETPOINT, BatchingMode.STATIC, size, budgets[-1])
    return found
