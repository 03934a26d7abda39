"""Model facts: totals against published counts, fields of many architectures, GGUF headers, mistakes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from setpoint.engine.models import demo_file
from setpoint.hardware.errors import HardwareError
from setpoint.hardware.model_catalogue import models
from setpoint.hardware.model_config import facts_from_config
from setpoint.hardware.model_facts import UnknownModel, model_facts, precision_name

# Billions of parameters, all and those a token passes through, as the model's authors give them.
PUBLISHED = [
    ("meta-llama/Llama-3.1-8B-Instruct", 8.03, 8.03),
    ("meta-llama/Llama-3.3-70B-Instruct", 70.55, 70.55),
    ("llama-3.1-405b", 405.85, 405.85),
    ("meta-llama/Llama-3.2-1B", 1.236, 1.236),
    ("llama-2-7b", 6.738, 6.738),
    ("llama-2-70b", 68.98, 68.98),
    ("Qwen/Qwen2.5-7B-Instruct", 7.616, 7.616),
    ("Qwen/Qwen2.5-72B", 72.7, 72.7),
    ("Qwen/Qwen3-32B", 32.76, 32.76),
    ("Qwen/Qwen3-235B-A22B-FP8", 235.1, 22.2),
    ("Qwen/Qwen3-30B-A3B", 30.5, 3.35),
    ("Qwen/Qwen3.5-397B-A17B", 397.0, 17.3),
    ("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.7, 12.9),
    ("mixtral-8x22b", 140.6, 39.2),
    ("mistralai/Mistral-Nemo-Instruct-2407", 12.25, 12.25),
    ("openai/gpt-oss-120b", 116.8, 5.7),
    ("openai/gpt-oss-20b", 20.9, 4.19),
    ("deepseek-ai/DeepSeek-V3", 671.0, 37.55),
    ("nvidia/DeepSeek-V3.1-NVFP4", 671.0, 37.55),
    ("moonshotai/Kimi-K2.5", 1026.4, 32.9),
    ("MiniMaxAI/MiniMax-M2.5", 228.7, 11.0),
    ("zhipuai/GLM-5", 744.0, 41.8),
    ("HuggingFaceTB/SmolLM2-135M-Instruct", 0.1345, 0.1345),
    ("google/gemma-2-9b-it", 9.24, 9.24),
    ("microsoft/phi-4", 14.66, 14.66),
    ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 107.8, 17.2),
]


@pytest.mark.parametrize(("name", "total", "active"), PUBLISHED)
def test_parameters_are_the_published_ones(name: str, total: float, active: float) -> None:
    facts = model_facts(name)
    assert facts.parameters / 1e9 == pytest.approx(total, rel=0.005)
    assert facts.active_parameters / 1e9 == pytest.approx(active, rel=0.01)


def test_every_bundled_model_is_whole() -> None:
    for facts in models():
        assert facts.active_parameters <= facts.parameters
        assert facts.kv_values_per_token + facts.window_values_per_token > 0
        assert facts.flops_per_token > 0
        assert 0 < facts.weight_bytes("fp4") < facts.weight_bytes("fp8") < facts.weight_bytes("bf16")


def test_cache_bytes_of_a_token() -> None:
    assert model_facts("llama-3.1-8b").kv_bytes_per_token("bf16") == 131_072
    assert model_facts("llama-2-7b").kv_bytes_per_token("bf16") == 524_288
    assert model_facts("deepseek-r1").kv_bytes_per_token("bf16") == 61 * 576 * 2
    assert model_facts("qwen3.5-397b-a17b").kv_bytes_per_token("bf16") == 15 * 2 * 256 * 2 * 2


def test_a_window_stops_the_cache_from_growing() -> None:
    facts = model_facts("gpt-oss-20b")
    assert facts.window_tokens == 128
    assert facts.kv_bytes(2048, "bf16") - facts.kv_bytes(1024, "bf16") == 1024 * 12 * 2 * 8 * 64 * 2


def test_published_checkpoints_of_four_bits_are_as_large_as_they_are() -> None:
    assert model_facts("gpt-oss-120b").weight_bytes("fp4") / 1e9 == pytest.approx(65.3, rel=0.06)
    assert model_facts("kimi-k2.5").weight_bytes("int4") / 1e9 == pytest.approx(595, rel=0.01)
    assert model_facts("deepseek-v3").weight_bytes("fp8") / 1e9 == pytest.approx(674, rel=0.01)


def test_experts_read_grow_to_all() -> None:
    facts = model_facts("mixtral-8x7b")
    assert facts.experts_read(1) == pytest.approx(0.25)
    assert facts.experts_read(2) == pytest.approx(1 - 0.75**2)
    assert facts.experts_read(1e4) == pytest.approx(1.0)
    assert model_facts("llama-3.1-8b").experts_read(64) == 0


def config(**changes: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 100,
        "max_position_embeddings": 512,
        **changes,
    }


def test_a_dense_model_by_hand() -> None:
    facts = facts_from_config(config(), name="tiny")
    layer = 64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 128 + 2 * 64
    assert facts.parameters == 4 * layer + 64 + 2 * 100 * 64
    tied = facts_from_config(config(tie_word_embeddings=True), name="tiny")
    assert tied.parameters == facts.parameters - 100 * 64
    assert tied.embedding_parameters == 0


def test_nested_configurations_of_multimodal_models_are_read() -> None:
    nested = {"model_type": "seer", "text_config": config(), "vision_config": {"hidden_size": 9}, "tie_word_embeddings": True}
    assert facts_from_config(nested, name="tiny") == facts_from_config(config(tie_word_embeddings=True), name="tiny")


def test_sliding_windows_by_list_pattern_and_switch() -> None:
    kinds = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]
    listed = facts_from_config(config(layer_types=kinds, sliding_window=16), name="t")
    assert (listed.kv_values_per_token, listed.window_values_per_token) == (64, 192)
    pattern = facts_from_config(config(sliding_window=16, sliding_window_pattern=4), name="t")
    assert (pattern.kv_values_per_token, pattern.window_values_per_token) == (64, 192)
    off = facts_from_config(config(sliding_window=16, use_sliding_window=False), name="t")
    assert (off.kv_values_per_token, off.window_tokens) == (256, 0)


def test_sparse_layers_by_every_convention() -> None:
    moe = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    assert facts_from_config(config(**moe), name="t").moe_layers == 4
    assert facts_from_config(config(**moe, first_k_dense_replace=1), name="t").moe_layers == 3
    assert facts_from_config(config(**moe, decoder_sparse_step=2), name="t").moe_layers == 2
    assert facts_from_config(config(**moe, mlp_only_layers=[0, 3]), name="t").moe_layers == 2
    assert facts_from_config(config(**moe, moe_layer_freq=[0, 1, 1, 1]), name="t").moe_layers == 3
    shared = facts_from_config(config(**moe, n_shared_experts=1), name="t")
    assert shared.parameters - facts_from_config(config(**moe), name="t").parameters == 4 * 3 * 64 * 32


@pytest.mark.parametrize(
    ("text", "name"),
    [("nvfp4", "fp4"), ("FP8", "fp8"), ("float16", "bf16"), ("awq", "int4"), ("q8_0", "int8"), ("fp8_block", "fp8")],
)
def test_precisions_as_people_spell_them(text: str, name: str) -> None:
    assert precision_name(text) == name


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="did you mean"):
        model_facts("llama-3.1-9b-x")
    with pytest.raises(HardwareError, match="precision 'fp3'"):
        precision_name("fp3")
    with pytest.raises(HardwareError, match="no hidden_size"):
        facts_from_config({"model_type": "bert"}, name="t")
    broken = tmp_path / "config.json"
    broken.write_text("{")
    with pytest.raises(HardwareError, match="cannot be read as JSON"):
        model_facts(str(broken))


def test_a_folder_or_a_users_own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config()))
    assert model_facts(str(folder)).name == "my-model"
    own = tmp_path / "data" / "models"
    own.mkdir(parents=True)
    (own / "mine.json").write_text(json.dumps(config(name="mine", aliases=["ours"])))
    monkeypatch.setenv("SETPOINT_DATA", str(tmp_path / "data"))
    assert model_facts("someone/Ours-Instruct").layers == 4


def test_the_demo_models_file_agrees_with_its_catalogue_entry() -> None:
    file, listed = model_facts(str(demo_file())), model_facts("smollm2-135m")
    assert file.parameters == listed.parameters == 134_515_008
    assert file.kv_values_per_token == listed.kv_values_per_token
    assert file.native_precision == listed.native_precision == "int4"
    assert file.file_bytes is not None
    assert file.file_bytes < demo_file().stat().st_size


def gguf_string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def write_gguf(path: Path, pairs: dict[str, int | str], tensors: dict[str, tuple[int, ...]]) -> None:
    body = b""
    for key, value in pairs.items():
        if isinstance(value, str):
            body += gguf_string(key) + struct.pack("<I", 8) + gguf_string(value)
        else:
            body += gguf_string(key) + struct.pack("<II", 4, value)
    for name, shape in tensors.items():
        body += gguf_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 2, 0)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + body)


MOE_PAIRS: dict[str, int | str] = {
    "general.architecture": "qwen3moe",
    "qwen3moe.embedding_length": 64,
    "qwen3moe.block_count": 2,
    "qwen3moe.feed_forward_length": 128,
    "qwen3moe.attention.head_count": 4,
    "qwen3moe.attention.head_count_kv": 2,
    "qwen3moe.context_length": 512,
    "qwen3moe.vocab_size": 100,
    "qwen3moe.expert_count": 8,
    "qwen3moe.expert_used_count": 2,
    "qwen3moe.expert_feed_forward_length": 32,
}


def test_experts_of_a_gguf_file_are_counted_from_its_tensors(tmp_path: Path) -> None:
    file = tmp_path / "moe.gguf"
    write_gguf(
        file,
        MOE_PAIRS,
        {"token_embd.weight": (64, 100), "blk.0.ffn_up_exps.weight": (64, 32, 8), "blk.0.attn_q.weight": (64, 64)},
    )
    facts = model_facts(str(file))
    assert facts.parameters == 64 * 100 + 64 * 32 * 8 + 64 * 64
    assert facts.active_parameters == 64 * 100 + 64 * 32 * 2 + 64 * 64
    assert facts.native_precision == "int4"


@pytest.mark.parametrize("content", [b"", b"GGUX", b"GGUF\x03\x00\x00\x00", b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1)])
def test_a_file_that_is_no_gguf_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(content)
    with pytest.raises(HardwareError, match="cannot be read as GGUF"):
        model_facts(str(file))


@pytest.mark.parametrize(
    ("quantization", "precision"),
    [
        ({"quant_method": "gptq", "bits": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "fbgemm_fp8"}, "fp8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "int4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8"),
        ({"quant_method": "mxfp4"}, "fp4"),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}}, "fp8"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 8, "type": "float"}}}},
            "fp8",
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 8, "type": "int"}}}},
            "int8",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"weights": {"num_bits": 4, "type": "int"}}},
                "kv_cache_scheme": {"num_bits": 8, "type": "float"},
            },
            "int4",
        ),
    ],
)
def test_quantised_checkpoints_by_their_own_words(quantization: dict[str, Any], precision: str) -> None:
    facts = facts_from_config(config(quantization_config=quantization), name="t")
    assert facts.native_precision == precision


def test_a_window_as_long_as_the_context_is_none() -> None:
    endless = facts_from_config(config(sliding_window=512), name="t")
    assert (endless.window_tokens, endless.kv_values_per_token) == (0, 256)
    listed = facts_from_config(config(sliding_window=4096, layer_types=["sliding_attention"] * 4), name="t")
    assert (listed.window_tokens, listed.kv_values_per_token) == (0, 256)


def test_one_key_and_value_for_all_heads() -> None:
    shared = facts_from_config(config(multi_query=True, num_kv_heads=4), name="t")
    assert (shared.kv_heads, shared.kv_values_per_token) == (1, 4 * 2 * 16)
    later = config(multi_query=True, new_decoder_architecture=True, num_key_value_heads=2)
    assert facts_from_config(later, name="t").kv_heads == 2


def test_a_file_of_a_model_without_heads_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "mamba.gguf"
    write_gguf(file, {**MOE_PAIRS, "qwen3moe.attention.head_count": 0}, {})
    with pytest.raises(HardwareError, match="must be at least 1"):
        model_facts(str(file))


def test_every_other_layer_of_a_gguf_of_gpt_oss_has_a_window(tmp_path: Path) -> None:
    pairs = {key.replace("qwen3moe", "gpt-oss"): value for key, value in MOE_PAIRS.items()}
    file = tmp_path / "oss.gguf"
    write_gguf(file, {**pairs, "general.architecture": "gpt-oss", "gpt-oss.attention.sliding_window": 128}, {})
    facts = model_facts(str(file))
    assert facts.window_tokens == 128
    assert facts.kv_values_per_token == facts.window_values_per_token > 0


@pytest.mark.parametrize(
    ("heads", "kv_heads", "parallel", "possible"),
    [(32, 8, 8, True), (32, 8, 16, True), (40, 10, 4, False), (40, 10, 2, True), (24, 8, 3, False), (64, 4, 8, True)],
)
def test_heads_and_kv_heads_are_dealt_out_evenly(heads: int, kv_heads: int, parallel: int, possible: bool) -> None:
    facts = facts_from_config(config(num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=16), name="t")
    assert facts.can_be_split(parallel) is possible


def test_the_precision_in_a_checkpoints_name_is_that_of_its_weights() -> None:
    for name, precision in (
        ("RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8", "fp8"),
        ("Qwen/Qwen3-32B-AWQ", "int4"),
        ("nvidia/Qwen3-32B-NVFP4", "fp4"),
        ("meta-llama/Llama-3.1-70B-Instruct", "bf16"),
        ("openai/gpt-oss-120b", "fp4"),
        ("nvidia/DeepSeek-V3-0324-NVFP4", "fp4"),
    ):
        assert model_facts(name).native_precision == precision


def test_scales_of_mxfp4_take_half_of_those_of_nvfp4() -> None:
    """65.3 GB is what the published files take."""
    assert model_facts("gpt-oss-120b").weight_bytes("fp4") == pytest.approx(65.3e9, rel=0.02)


def test_gemma_3_may_leave_out_what_its_library_fills_in() -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34, "intermediate_size": 10240}
    facts = facts_from_config({"model_type": "gemma3", "text_config": {**text, "sliding_window": 1024}}, name="gemma-3-4b-it")
    assert (facts.heads, facts.kv_heads, facts.head_dim, facts.vocabulary) == (8, 4, 256, 262_208)
    assert facts.parameters == pytest.approx(3.88e9, rel=0.02)


@pytest.mark.parametrize("strange", [{"layer_types": ["mamba", "attention"] * 2}, {"hybrid_override_pattern": "M-M*"}])
def test_layers_that_are_not_modelled_are_refused(strange: dict[str, Any]) -> None:
    with pytest.raises(HardwareError, match="not modelled"):
        facts_from_config(config(**strange), name="t")


def test_four_bits_beside_a_cache_of_eight_are_four_bits() -> None:
    quantization = {"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}
    assert facts_from_config(config(quantization_config=quantization), name="t").native_precision == "fp4"
