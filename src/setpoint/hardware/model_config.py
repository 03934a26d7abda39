"""Model facts from a Hugging Face ``config.json``, whatever the architecture: by what its fields say, not by its name.

Counted: attention (grouped, multi-head latent, linear), dense and expert multi-layer perceptrons, shared experts, routers,
norms, the input table and the output matrix. Not counted: vision and audio parts, and layers that predict further tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from setpoint.hardware.errors import HardwareError
from setpoint.hardware.model_facts import MXFP4_BYTES, PARAMETER_BYTES, PRECISION_NAMES, ModelFacts

# Perceptrons of two matrices, without a gate.
UNGATED = {
    "gpt2", "gpt_neox", "gptj", "gpt_bigcode", "opt", "phi", "falcon", "starcoder2", "bloom", "mpt", "nemotron",
}  # fmt: skip
QKV_BIAS = {"qwen2", "qwen2_moe", "gpt_oss", "starcoder2", "phi", "gpt2"}
FOUR_NORMS = {"gemma2", "gemma3", "gemma3_text", "gemma4_text"}
STATE_VALUE_BYTES = 2.0
"""States are kept in the precision of activations, with as much again for the convolution's and the step's copies."""
UNSTATED_CONTEXT = 1 << 20
"""Of a configuration that names none: as good as no bound."""
# What configurations of a type leave out, as the library that reads them fills it in.
USUAL: Mapping[str, Mapping[str, Any]] = {
    "gemma3_text": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262_208},
}
TIED = {"gpt2", "opt", "falcon", "cohere", "cohere2", "starcoder2", "gpt_bigcode"}
NESTED = ("text_config", "llm_config", "language_config", "language_model_config")


class _Fields:
    """Numbers of a configuration by any of their names."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self.config, self.where = config, where

    def number(self, *names: str, default: int | None = None) -> int:
        """The first of ``names`` that is there. Raises ``HardwareError`` if none is and there is no default."""
        for name in names:
            value = self.config.get(name)
            if isinstance(value, list) and value and all(isinstance(each, int) for each in value):
                value = round(sum(value) / len(value))
            if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e9:
                return int(value)
        if default is None:
            raise HardwareError(f"{self.where}: no {names[0]} in it, so it does not describe a language model")
        return default

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.config.get(name)
        return default if value is None else bool(value)

    def kinds(self) -> list[str]:
        """What each layer's attention is, where the configuration lists it."""
        value = self.config.get("layer_types")
        return [str(each) for each in value] if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class _Attention:
    """One layer: parameters, values kept a token, operations a pair of tokens."""

    parameters: float
    values: float
    flops: float
    parts: int


def facts_from_config(config: Mapping[str, Any], *, name: str, where: str = "config.json") -> ModelFacts:
    """The facts of the model that ``config`` describes. Raises ``HardwareError`` that names ``where`` and the field."""
    outer = config
    for key in NESTED:
        if isinstance(config.get(key), Mapping):
            config = {**{k: v for k, v in outer.items() if k in ("tie_word_embeddings", "quantization_config")}, **config[key]}
            break
    config = {**USUAL.get(str(config.get("model_type")), {}), **config}
    fields = _Fields(config, where)
    context_tokens = fields.number(
        "max_position_embeddings", "n_positions", "seq_length", "max_sequence_length", default=UNSTATED_CONTEXT
    )
    hidden, layers = (
        fields.number("hidden_size", "n_embd", "d_model"),
        fields.number("num_hidden_layers", "n_layer", "num_layers"),
    )
    heads = fields.number("num_attention_heads", "n_head", "num_heads")
    kv_heads = _kv_heads(fields, heads)
    head_dim = fields.number("head_dim", "attention_head_dim", "kv_channels", default=hidden // max(heads, 1))
    if min(hidden, layers, heads, kv_heads, head_dim) < 1:
        raise HardwareError(f"{where}: hidden_size, num_hidden_layers and numbers of heads must be at least 1")
    vocabulary = fields.number("vocab_size", "padded_vocab_size")
    attention = _attention(fields, hidden, heads, kv_heads, head_dim)
    linear = _linear_attention(fields, hidden)
    full, window, states = _layer_kinds(fields, layers, context_tokens, has_linear=linear is not None)
    dense, moe_layers, expert, experts, chosen, shared = _perceptrons(fields, hidden, layers)
    norms = (4 if str(config.get("model_type")) in FOUR_NORMS else 2) * hidden * layers + hidden
    table = vocabulary * hidden
    tied = fields.flag("tie_word_embeddings", bool(outer.get("tie_word_embeddings", _tied_by_default(config))))
    routed = float(moe_layers * experts * expert)
    common = (full + window) * attention.parameters + (states * linear[0] if linear else 0.0) + dense + shared + norms
    total = common + routed + table * (1 if tied else 2)
    return ModelFacts(
        name=name,
        family=family_of(config, name),
        layers=layers,
        hidden=hidden,
        vocabulary=vocabulary,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        parameters=float(total),
        active_parameters=float(total - routed + moe_layers * chosen * expert),
        expert_parameters=routed,
        embedding_parameters=0.0 if tied else float(table),
        experts=experts,
        experts_per_token=chosen,
        moe_layers=moe_layers,
        kv_values_per_token=full * attention.values,
        window_values_per_token=window * attention.values,
        window_tokens=_window(fields) if window else 0,
        kv_parts=attention.parts,
        state_bytes=states * linear[1] * STATE_VALUE_BYTES if linear else 0.0,
        attention_flops=full * attention.flops,
        window_attention_flops=window * attention.flops,
        context_tokens=context_tokens,
        native_precision=native_precision(outer) or native_precision(config) or "bf16",
        state_parts=max(1, fields.number("linear_num_key_heads", "linear_num_value_heads", default=1)),
        fp4_bytes=MXFP4_BYTES if "mxfp4" in _quantisation_text(outer) + _quantisation_text(config) else PARAMETER_BYTES["fp4"],
    )


def _kv_heads(fields: _Fields, heads: int) -> int:
    """One where all heads share it (``multi_query``); Falcon's later models name a number beside that flag."""
    if fields.flag("multi_query") and not fields.flag("new_decoder_architecture"):
        return 1
    return fields.number("num_key_value_heads", "n_head_kv", "num_kv_heads", "multi_query_group_num", default=heads)


def family_of(config: Mapping[str, Any], name: str) -> str:
    """A word for models that run the same kernels: the model type, versions of one architecture together."""
    kind = str(config.get("model_type") or "").lower().removesuffix("_text")
    if config.get("kv_lora_rank"):
        return "deepseek"
    return kind or re.sub(r"[^a-z].*", "", name.lower()) or "unknown"


def _tied_by_default(config: Mapping[str, Any]) -> bool:
    return str(config.get("model_type", "")).startswith("gemma") or config.get("model_type") in TIED


def _attention(fields: _Fields, hidden: int, heads: int, kv_heads: int, head_dim: int) -> _Attention:
    latent = fields.number("kv_lora_rank", default=0)
    if latent:
        return _latent_attention(fields, hidden, heads, latent)
    value_dim = fields.number("v_head_dim", default=head_dim)
    query = heads * head_dim * (2 if fields.flag("attn_output_gate") else 1)
    kept = kv_heads * (head_dim + value_dim)
    parameters = hidden * (query + kept) + heads * value_dim * hidden
    if fields.flag("attention_bias", str(fields.config.get("model_type")) in QKV_BIAS) or fields.flag("qkv_bias"):
        parameters += heads * head_dim + kept
    return _Attention(float(parameters), float(kept), 2.0 * heads * (head_dim + value_dim), kv_heads)


def _latent_attention(fields: _Fields, hidden: int, heads: int, latent: int) -> _Attention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): one latent and one rotary key a token, for all heads."""
    nope, rope = fields.number("qk_nope_head_dim", default=128), fields.number("qk_rope_head_dim", default=64)
    value = fields.number("v_head_dim", default=128)
    low = fields.number("q_lora_rank", default=0)
    query = hidden * low + low * heads * (nope + rope) if low else hidden * heads * (nope + rope)
    parameters = query + hidden * (latent + rope) + latent * heads * (nope + value) + heads * value * hidden
    index_heads, index_dim = fields.number("index_n_heads", default=0), fields.number("index_head_dim", default=0)
    parameters += (low or hidden) * index_heads * index_dim + hidden * (index_dim + index_heads)
    return _Attention(float(parameters), float(latent + rope + index_dim), 2.0 * heads * (nope + rope + value), 1)


def _linear_attention(fields: _Fields, hidden: int) -> tuple[float, float] | None:
    """Parameters of a gated linear layer (Qwen3-Next) and the values of its state, if the model has any."""
    values = fields.number("linear_num_value_heads", default=0)
    if not values:
        return None
    keys = fields.number("linear_num_key_heads", default=values)
    key_dim, value_dim = fields.number("linear_key_head_dim", default=128), fields.number("linear_value_head_dim", default=128)
    mixed = 2 * keys * key_dim + values * value_dim
    parameters = hidden * (mixed + values * value_dim + 2 * values) + values * value_dim * hidden
    parameters += mixed * fields.number("linear_conv_kernel_dim", default=4)
    return float(parameters), float(2 * values * key_dim * value_dim)


def _layer_kinds(fields: _Fields, layers: int, context_tokens: int, *, has_linear: bool) -> tuple[int, int, int]:
    """Layers with full attention, with a sliding window (shorter than the context), and with a state instead of a cache."""
    slides = 0 < _window(fields) < context_tokens
    kinds = fields.kinds()[:layers]
    strange = next((kind for kind in kinds if "attention" not in kind and not (has_linear and "linear" in kind)), None)
    if strange is not None or "hybrid_override_pattern" in fields.config:
        found = strange or fields.config["hybrid_override_pattern"]
        raise HardwareError(f"{fields.where}: layers of kind {str(found)[:40]!r} are not modelled")
    every = fields.number("full_attention_interval", default=0)
    if kinds:
        states = sum("linear" in kind or "mamba" in kind for kind in kinds)
        window = sum("sliding" in kind or "chunked" in kind for kind in kinds) if slides else 0
        return layers - states - window, window, states
    if has_linear:
        full = layers // (every or 4)
        return full, 0, layers - full
    if not slides or fields.config.get("use_sliding_window") is False:
        return layers, 0, 0
    pattern = fields.number("sliding_window_pattern", default=0)
    kind = str(fields.config.get("model_type"))
    if not pattern:
        pattern = {"gemma2": 2, "gpt_oss": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4, "llama4_text": 4}.get(kind, 0)
    full = layers // pattern if pattern else 0
    return full, layers - full, 0


def _window(fields: _Fields) -> int:
    return fields.number("sliding_window", "sliding_window_size", "attention_chunk_size", default=0)


def _perceptrons(fields: _Fields, hidden: int, layers: int) -> tuple[float, int, float, int, int, float]:
    """Parameters of dense layers, MoE layers, parameters of an expert, experts, chosen ones, shared and router parameters."""
    kind = str(fields.config.get("model_type"))
    matrices = 2 if kind in UNGATED or fields.config.get("hidden_act") == "relu2" else 3
    inner = fields.number("intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim", default=4 * hidden)
    experts = fields.number("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts", default=0)
    chosen = fields.number("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "experts_per_token", default=0)
    if not experts or not chosen:
        return float(layers * matrices * hidden * inner), 0, 0.0, 0, 0, 0.0
    expert_inner = fields.number("moe_intermediate_size", "expert_ffn_hidden_size", default=inner)
    moe_layers = _moe_layers(fields, layers)
    dense_inner = fields.number("intermediate_size_mlp", default=inner)
    shared_inner = fields.number("shared_expert_intermediate_size", "shared_intermediate_size", default=0)
    if not shared_inner:
        count = fields.number(
            "n_shared_experts", "num_shared_experts", "moe_num_shared_experts", default=int(kind == "llama4_text")
        )
        shared_inner = count * expert_inner
    expert = matrices * hidden * expert_inner
    if kind == "gpt_oss":
        expert += 2 * expert_inner + hidden
    shared = moe_layers * (matrices * hidden * shared_inner + hidden * experts)
    dense = (layers - moe_layers) * matrices * hidden * dense_inner
    return float(dense), moe_layers, float(expert), experts, min(chosen, experts), float(shared)


def _moe_layers(fields: _Fields, layers: int) -> int:
    first = fields.number("first_k_dense_replace", default=0)
    alone = fields.config.get("mlp_only_layers")
    dense = {each for each in alone if isinstance(each, int)} if isinstance(alone, list) else set()
    every = max(1, fields.number("moe_layer_freq", "decoder_sparse_step", "interleave_moe_layer_step", default=1))
    listed = fields.config.get("moe_layer_freq")
    if isinstance(listed, list):
        return sum(bool(each) for each in listed)
    return sum(layer >= first and layer not in dense and (layer + 1) % every == 0 for layer in range(layers))


def _quantised_weights(quantization: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """How weights are quantised, group by group: ``config_groups`` of compressed-tensors, ``global_quant_config`` of Quark."""
    groups = quantization.get("config_groups")
    found = (
        [each.get("weights") for each in groups.values() if isinstance(each, Mapping)] if isinstance(groups, Mapping) else []
    )
    everywhere = quantization.get("global_quant_config")
    if isinstance(everywhere, Mapping):
        weight = everywhere.get("weight")
        found += weight if isinstance(weight, list) else [weight]
    return [each for each in found if isinstance(each, Mapping)]


def _is_fp8(weights: Mapping[str, Any]) -> bool:
    eight_bit_floats = weights.get("num_bits") == 8 and weights.get("type") == "float"
    return eight_bit_floats or str(weights.get("dtype", "")).lower().startswith("fp8")


def _quantisation_text(config: Mapping[str, Any]) -> str:
    """What a configuration says of how its weights are quantised, the cache apart."""
    quantization = config.get("quantization_config") or config.get("quantization")
    if not isinstance(quantization, Mapping):
        return ""
    return str({key: value for key, value in quantization.items() if not str(key).startswith("kv_cache")}).lower()


def native_precision(config: Mapping[str, Any]) -> str | None:
    """The precision of published weights by ``quantization_config``; ``None`` if it says nothing."""
    quantization = config.get("quantization_config") or config.get("quantization")
    if not isinstance(quantization, Mapping):
        return None
    text = _quantisation_text(config)
    algorithm = str(quantization.get("quant_algo") or "").lower()
    method = str(quantization.get("quant_method") or quantization.get("quant_algo") or "").lower()
    if method == "bitsandbytes":
        return "int4" if quantization.get("load_in_4bit") or quantization.get("_load_in_4bit") else "int8"
    if algorithm and algorithm in PRECISION_NAMES:
        return PRECISION_NAMES[algorithm]
    if method and method in PRECISION_NAMES:
        return "int8" if PRECISION_NAMES[method] == "int4" and quantization.get("bits") == 8 else PRECISION_NAMES[method]
    weights = _quantised_weights(quantization)
    if "nvfp4" in text or "'mxfp4'" in text:
        return "fp4"
    if "fp8" in method or "fp8" in algorithm or "float8" in text or "'fp8'" in text or any(_is_fp8(each) for each in weights):
        return "fp8"
    if "fp4" in text:
        return "fp4"
    return next((f"int{bits}" for bits in (4, 8) if f"'num_bits': {bits}" in text or f"'bits': {bits}" in text), None)
