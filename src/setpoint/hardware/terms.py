"""What a step costs on an ideal device: seconds per unit of work at the datasheet's rates, for one deployment.

Every field may also be an array with one value a deployment: all that is computed from them is plain arithmetic, so one
formula serves a single prediction, the simulator and the fit over thousands of measurements.

    weights read   = dense bytes / (devices of a layer x bandwidth) + experts hit x expert bytes / (devices x bandwidth)
    operations     = 2 x active parameters x tokens / (devices x operations a second at that precision)
    cache read     = KV bytes a token / (parts of the cache x bandwidth), for each token of context
    attention      = 2 x heads x (key + value size) x layers / (devices x bf16 operations a second), for each pair of tokens
    all-reduce     = 2 a layer of 2 (n - 1) / n x hidden x 2 bytes a token over the link, and a latency each
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt

from setpoint.hardware.deployment import Deployment

ACTIVATION_BYTES = 2.0
# Dense weights of 4 bits are unpacked on the way: that much of the bandwidth is lost at small batches.
FOUR_BIT_READS = 1.5
# Reads and writes of activations a layer beside the multiplications: norms, rotations, gates, quantisation.
ACTIVATION_PASSES = 12.0
# Windows from so many tokens on are charged by the context, as if they had no end: a step's time stays linear in its context,
# and contexts are mostly shorter. When that is wrong: beyond such a window, where the reads of these layers grow no further.
LONG_WINDOW_TOKENS = 2_048

Number = float | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Terms:
    """Ideal seconds; ``_s`` once a step, ``_token_s`` for each new token, ``_sequence_s`` for each sequence of the step.

    ranks: copies of the attention part, each with its own sequences. expert_share: chosen experts / experts of a layer (0:
    dense). reductions: collectives a step, weighted by how many devices.
    """

    dense_weights_s: Any
    expert_weights_s: Any
    expert_share: Any
    dense_token_s: Any
    expert_token_s: Any
    output_sequence_s: Any
    kv_token_s: Any
    window_sequence_s: Any
    product_s: Any
    link_token_s: Any
    activation_token_s: Any
    reductions: Any
    ranks: Any
    layers: Any
    moe_layers: Any


def terms_of(deployment: Deployment) -> Terms:
    """The ideal costs of ``deployment``."""
    model, device = deployment.model, deployment.accelerator
    tp, devices, dp = deployment.tensor_parallel, deployment.devices, deployment.data_parallel
    bandwidth = device.memory_bytes_per_s
    dense_bytes, expert_bytes, _ = model.parts_bytes(deployment.weight_precision)
    narrow = device.compute_flops_per_s(deployment.weight_precision)
    wide_flops = device.compute_flops_per_s("bf16")
    output = 2.0 * model.vocabulary * model.hidden
    four_bits = deployment.weight_precision in ("fp4", "int4")
    kept_wide = four_bits and bool(model.experts)
    unpacking = FOUR_BIT_READS if four_bits and not kept_wide else 1.0
    dense_flops = 2.0 * model.dense_parameters - output
    chosen = model.expert_parameters * (model.experts_per_token / model.experts if model.experts else 0.0)
    kv_unit = deployment.kv_bytes_per_token_per_device / max(model.kv_values_per_token + model.window_values_per_token, 1e-9)
    long = model.window_tokens >= LONG_WINDOW_TOKENS
    whole = model.kv_values_per_token + (model.window_values_per_token if long else 0.0)
    window = 0.0 if long else model.window_values_per_token * model.window_tokens
    state_bytes = 2.0 * model.state_bytes / min(tp, model.state_parts)
    reduced = 2.0 * model.layers * 2.0 * (devices - 1) / devices * model.hidden * ACTIVATION_BYTES / dp
    return Terms(
        dense_weights_s=unpacking * dense_bytes / tp / bandwidth,
        expert_weights_s=expert_bytes / devices / bandwidth,
        expert_share=model.experts_per_token / model.experts if model.experts else 0.0,
        dense_token_s=dense_flops / devices / (wide_flops if kept_wide else narrow),
        expert_token_s=2.0 * chosen / devices / narrow,
        output_sequence_s=output / devices / wide_flops,
        kv_token_s=whole * kv_unit / dp / bandwidth,
        window_sequence_s=(window * kv_unit + state_bytes) / dp / bandwidth,
        product_s=(model.attention_flops + (model.window_attention_flops if long else 0.0)) / devices / wide_flops,
        link_token_s=reduced / device.link_bytes_per_s if device.link_bytes_per_s and devices > 1 else 0.0,
        activation_token_s=ACTIVATION_PASSES * model.layers * model.hidden * ACTIVATION_BYTES / dp / bandwidth,
        reductions=2.0 * model.layers * log2(devices) if devices > 1 else 0.0,
        ranks=float(dp),
        layers=float(model.layers),
        moe_layers=float(model.moe_layers),
    )


def stacked(many: list[Terms]) -> Terms:
    """Terms with one array a field, in the order of ``many``."""
    return Terms(**{each.name: np.array([getattr(terms, each.name) for terms in many]) for each in fields(Terms)})
