"""What binds a replica at the load of the plan: bandwidth, compute, link, overhead, or the capacity of its memory."""

from __future__ import annotations

from dataclasses import dataclass

from setpoint.hardware.step_time import bound_by
from setpoint.plan.fluid import Balance, Timer, at_load, capacity, largest_batch
from setpoint.plan.sketch import LoadSketch
from setpoint.plan.topology import Serving, Shape
from setpoint.policy.decisions import StepWork

CAPACITY = "capacity"
FULL_SHARE = 0.85
WORDS = {
    "bandwidth": "memory bandwidth",
    "compute": "arithmetic",
    "link": "the link between devices",
    "overhead": "fixed costs of a step",
    CAPACITY: "the capacity of its memory",
}


@dataclass(frozen=True, slots=True)
class Binding:
    """The average step at a load: what most of it waits for, and what a decode-only step waits for.

    batch: requests that decode; kv_share: of the cache they fill. utilisation: of the arithmetic that the datasheet has.
    """

    bound: str
    decode_bound: str
    batch: float
    step_s: float
    kv_share: float
    utilisation: float


def binding(shape: Shape, serving: Serving, timer: Timer, load: LoadSketch, rate_rps: float) -> Binding:
    """What binds at ``rate_rps``; at the most it carries, if that is less."""
    found = at_load(timer, load, serving, shape.kv_tokens, rate_rps) or capacity(timer, load, serving, shape.kv_tokens)
    return of_balance(shape, serving, load, found)


def of_balance(shape: Shape, serving: Serving, load: LoadSketch, found: Balance) -> Binding:
    """The same of a balance that is known."""
    kv_share = found.batch * load.mean_resident / max(shape.kv_tokens, 1)
    by_cache = shape.kv_tokens / load.mean_resident <= largest_batch(serving, load, float("inf"))
    decodes = max(1, round(found.batch))
    context = round(decodes * load.mean_context)
    full = by_cache and kv_share >= FULL_SHARE
    return Binding(
        bound=CAPACITY if full else bound_by(shape.deployment, found.work),
        decode_bound=bound_by(shape.deployment, StepWork(decodes, decodes, context, context)),
        batch=found.batch,
        step_s=found.step_s,
        kv_share=min(1.0, kv_share),
        utilisation=_utilisation(shape, found),
    )


def _utilisation(shape: Shape, found: Balance) -> float:
    """Operations of the step over what the datasheet's dense rate would do in its time."""
    deployment = shape.deployment
    model, device = deployment.model, deployment.accelerator
    needed = found.work.tokens * model.flops_per_token + found.work.attention_products * model.attention_flops
    rate = device.compute_flops_per_s(deployment.weight_precision) * deployment.devices
    return needed / (rate * found.step_s)
