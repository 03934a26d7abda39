"""How far from its ideal each term of a step is: a handful of numbers for one accelerator under one engine.

    step = weights and operations of the dense part, of the experts, of the output matrix
         + cache read x kv + pairs x attention + all-reduce + layers x launch + sequences + host

Weights and operations of one multiplication overlap, so the two join as ``(m^p + c^p)^(1/p)``, with p = ``OVERLAP`` between a
sum (1) and the roofline's maximum (infinity). All else adds up: engines run layer after layer. An expert that is hit computes
at least a tile of rows, so each counts ``pad`` rows more. With several attention ranks the busiest decides: decodes are
spread evenly, prompt tokens in pieces of ``RANK_TOKENS``.

The prior means below were set by hand from datasheets and rules of thumb; fits move away from them where measurements say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from setpoint.hardware.terms import Number, Terms

OVERLAP = 3.0
RANK_TOKENS = 4096.0


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Multiples of the ideal, and seconds of what a datasheet does not list.

    memory, experts, compute, expert_compute, kv, attention, link, activations: multiples of the term's ideal seconds; experts
    and attention may be below 1, as experts are not chosen evenly and the pairs of a prompt count double (see ``StepWork``).
    pad: rows an expert computes beyond those routed to it. reduction_s: latency of one all-reduce of two devices. layer_s,
    moe_layer_s: launches of a layer. sequence_s: sampling and bookkeeping of a sequence. step_s: the host's share of a step.
    """

    memory: Any = 1.3
    experts: Any = 1.2
    compute: Any = 1.65
    expert_compute: Any = 2.2
    pad: Any = 6.0
    kv: Any = 1.3
    attention: Any = 0.9
    link: Any = 2.0
    activations: Any = 0.7
    reduction_s: Any = 3.5e-6
    layer_s: Any = 14e-6
    moe_layer_s: Any = 4e-5
    sequence_s: Any = 2.5e-5
    step_s: Any = 7e-4

    def scaled(self, factors: Mapping[str, Number]) -> Coefficients:
        """These, each named one times its factor."""
        return replace(self, **{name: getattr(self, name) * factor for name, factor in factors.items()})


NAMES = tuple(field.name for field in fields(Coefficients))
# All but counts of rows: what is seconds, or a multiple of seconds.
TIMES = tuple(name for name in NAMES if name != "pad")
ON_GPU = Coefficients()
# On CPUs: no launches to speak of, kernels that reach about half of what a plain matrix product does.
ON_CPU = Coefficients(
    compute=2.0, expert_compute=2.5, pad=0.0, kv=2.0, attention=4.0, activations=1.5,
    layer_s=3e-5, moe_layer_s=3e-5, sequence_s=3e-4, step_s=1.5e-3,
)  # fmt: skip
PRIORS = {"gpu": ON_GPU, "cpu": ON_CPU}


def joined(memory_s: Number, compute_s: Number) -> Number:
    """Time of a multiplication whose reads and operations overlap in part."""
    return (memory_s**OVERLAP + compute_s**OVERLAP) ** (1.0 / OVERLAP)


def expert_parts_s(terms: Terms, coefficients: Coefficients, tokens: Number) -> tuple[Number, Number]:
    """Seconds of reading the experts that are hit, and of computing with them, on their own."""
    hit = 1.0 - (1.0 - terms.expert_share) ** tokens
    rows = tokens + hit * coefficients.pad / np.maximum(terms.expert_share, 1e-9)
    return coefficients.experts * terms.expert_weights_s * hit, coefficients.expert_compute * terms.expert_token_s * rows


def dense_parts_s(terms: Terms, coefficients: Coefficients, tokens: Number, sequences: Number) -> tuple[Number, Number]:
    """Seconds of reading the dense weights, and of computing with them on the busiest rank, on their own."""
    busy = busiest_tokens(terms, tokens, sequences)
    return coefficients.memory * terms.dense_weights_s, coefficients.compute * terms.dense_token_s * busy


def busiest_tokens(terms: Terms, tokens: Number, sequences: Number) -> Number:
    """Tokens that all devices together would compute if every rank were as busy as the busiest."""
    prompt = np.maximum(tokens - sequences, 0.0)
    used = np.minimum(terms.ranks, np.maximum(1.0, prompt / RANK_TOKENS))
    busy: Number = (tokens - prompt) + prompt / used * terms.ranks
    return busy


def parts_s(terms: Terms, coefficients: Coefficients, tokens: Number, sequences: Number) -> dict[str, Number]:
    """Seconds of a step of ``tokens`` new tokens over ``sequences`` sequences by part, cache and attention apart."""
    c = coefficients
    return {
        "dense": joined(*dense_parts_s(terms, c, tokens, sequences)),
        "experts": joined(*expert_parts_s(terms, c, tokens)),
        "output": c.compute * terms.output_sequence_s * sequences,
        "window": c.kv * terms.window_sequence_s * sequences,
        "link": c.link * terms.link_token_s * tokens + c.reduction_s * terms.reductions,
        "activations": c.activations * terms.activation_token_s * busiest_tokens(terms, tokens, sequences),
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
