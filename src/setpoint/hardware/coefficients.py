"""How far from its ideal each term of a step is: a handful of numbers for one accelerator under one engine.

    step = weights and operations of the dense part, of the experts, of the output matrix
         + cache read x kv + pairs x attention + all-reduce + layers x launch + sequences + host

Weights and operations of one multiplication overlap, so the two join as ``(m^p + c^p)^(1/p)``, with p = ``OVERLAP`` between a
sum (1) and the roofline's maximum (infinity). All else adds up: engines run layer after layer.

The prior means below are where fits over all bundled measurements end up on average; unseen hardware is predicted with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from setpoint.hardware.terms import Number, Terms

OVERLAP = 2.0


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Multiples of the ideal (at least about 1 each), and seconds of what a datasheet does not list.

    memory, experts, compute, expert_compute, kv, attention, link, activations: multiples. reduction_s: latency of one
    all-reduce of two devices. layer_s, moe_layer_s: launches of a layer. sequence_s: sampling and bookkeeping of one. step_s: the host's
    share of a step that does not overlap.
    """

    memory: Any = 1.35
    experts: Any = 1.6
    compute: Any = 1.6
    expert_compute: Any = 2.2
    kv: Any = 1.5
    attention: Any = 2.5
    link: Any = 2.0
    activations: Any = 1.0
    reduction_s: Any = 4e-6
    layer_s: Any = 12e-6
    moe_layer_s: Any = 10e-6
    sequence_s: Any = 8e-6
    step_s: Any = 6e-4

    def scaled(self, factors: Mapping[str, Number]) -> Coefficients:
        """These, each named one times its factor."""
        return replace(self, **{name: getattr(self, name) * factor for name, factor in factors.items()})


NAMES = tuple(field.name for field in fields(Coefficients))
# What an engine's fits end up at, where it differs from the mean over engines.
BY_ENGINE: dict[str, Coefficients] = {
    "vllm": Coefficients(),
    "sglang": Coefficients(),
    "trtllm": Coefficients(),
    # On CPUs: no launches to speak of, kernels that reach about half of what a plain matrix product does.
    "setpoint": Coefficients(
        memory=1.3, experts=1.6, compute=2.0, expert_compute=2.5, kv=2.0, attention=4.0,
        layer_s=3e-5, moe_layer_s=3e-5, sequence_s=3e-4, step_s=1.5e-3,
    ),
}  # fmt: skip


def joined(memory_s: Number, compute_s: Number) -> Number:
    """Time of a multiplication whose reads and operations overlap in part."""
    return (memory_s**OVERLAP + compute_s**OVERLAP) ** (1.0 / OVERLAP)


def parts_s(terms: Terms, coefficients: Coefficients, tokens: Number, sequences: Number) -> dict[str, Number]:
    """Seconds of a step of ``tokens`` new tokens over ``sequences`` sequences by part, cache and attention apart."""
    c = coefficients
    hit = 1.0 - (1.0 - terms.expert_share) ** tokens
    dense = joined(c.memory * terms.dense_weights_s, c.compute * terms.dense_token_s * tokens)
    experts = joined(c.experts * terms.expert_weights_s * hit, c.expert_compute * terms.expert_token_s * tokens)
    return {
        "dense": dense,
        "experts": experts,
        "output": c.compute * terms.output_sequence_s * sequences,
        "window": c.kv * terms.window_sequence_s * sequences,
        "link": c.link * terms.link_token_s * tokens + c.reduction_s * terms.reductions,
        "activations": c.activations * terms.activation_token_s * tokens,
        "launch": c.layer_s * terms.layers + c.moe_layer_s * terms.moe_layers,
        "sequences": c.sequence_s * sequences,
        "host": c.step_s + 0.0 * tokens,
    }


def base_s(terms: Terms, coefficients: Coefficients, tokens: Number, sequences: Number) -> Number:
    """Seconds of a step but for the reading of cache and attention, which are affine in the context."""
    total: Number = sum(parts_s(terms, coefficients, tokens, sequences).values())
    return total


def per_kv_token_s(terms: Terms, coefficients: Coefficients) -> Number:
    """Seconds for each token of context that the step reads."""
    seconds: Number = coefficients.kv * terms.kv_token_s
    return seconds


def per_product_s(terms: Terms, coefficients: Coefficients) -> Number:
    """Seconds for each pair of a new token and a token of its context."""
    seconds: Number = coefficients.attention * terms.product_s
    return seconds
