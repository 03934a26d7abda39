"""Model facts from the header of a GGUF file: its key-value pairs and the list of its tensors; no weights are read.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (little-endian). Tensors give the exact numbers of parameters
and bytes; the pairs give the shape of attention and cache.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from setpoint.hardware.errors import HardwareError
from setpoint.hardware.model_config import facts_from_config
from setpoint.hardware.model_facts import ModelFacts

MAGIC = b"GGUF"
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MOST_PAIRS, MOST_TENSORS, MOST_ITEMS, MOST_STRING_BYTES, MOST_DIMENSIONS = 1 << 12, 1 << 17, 1 << 22, 1 << 24, 8
# Bytes and values of a block by tensor type.
BLOCKS = {
    0: (4, 1), 1: (2, 1), 2: (18, 32), 3: (20, 32), 6: (22, 32), 7: (24, 32), 8: (34, 32), 9: (36, 32), 10: (84, 256),
    11: (110, 256), 12: (144, 256), 13: (176, 256), 14: (210, 256), 15: (292, 256), 16: (66, 256), 17: (74, 256),
    18: (98, 256), 19: (50, 256), 20: (18, 32), 21: (110, 256), 22: (82, 256), 23: (136, 256), 24: (1, 1), 25: (2, 1),
    26: (4, 1), 27: (8, 1), 28: (8, 1), 29: (56, 256), 30: (2, 1), 34: (54, 256), 35: (66, 256), 39: (17, 32),
}  # fmt: skip
FIELDS = {
    "hidden_size": "embedding_length", "num_hidden_layers": "block_count", "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length", "v_head_dim": "attention.value_length", "max_position_embeddings": "context_length",
    "vocab_size": "vocab_size", "sliding_window": "attention.sliding_window", "num_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count", "moe_intermediate_size": "expert_feed_forward_length",
    "n_shared_experts": "expert_shared_count", "first_k_dense_replace": "leading_dense_block_count",
    "kv_lora_rank": "attention.kv_lora_rank", "q_lora_rank": "attention.q_lora_rank",
    "qk_rope_head_dim": "rope.dimension_count",
}  # fmt: skip


def facts_from_gguf(file: Path) -> ModelFacts:
    """The facts of ``file``. Raises ``HardwareError`` if it is no GGUF file or lacks a field."""
    try:
        with file.open("rb") as stream:
            pairs, tensors = _header(stream)
    except (OSError, struct.error, ValueError, RecursionError, OverflowError) as error:
        raise HardwareError(f"{file}: cannot be read as GGUF: {error}") from error
    architecture = str(pairs.get("general.architecture", ""))
    config: dict[str, Any] = {"model_type": architecture.replace("-", "_")}
    for field, key in FIELDS.items():
        if (value := pairs.get(f"{architecture}.{key}")) is not None:
            config[field] = value
    if "kv_lora_rank" in config:
        config["qk_nope_head_dim"] = max(1, int(config.pop("head_dim", 192)) - int(config.get("qk_rope_head_dim", 64)))
    config.setdefault("vocab_size", pairs.get("tokenizer.ggml.tokens"))
    config["tie_word_embeddings"] = "output.weight" not in tensors
    facts = facts_from_config(config, name=file.stem, where=str(file))
    return _counted(facts, tensors) if tensors else facts


def _counted(facts: ModelFacts, tensors: dict[str, tuple[int, float]]) -> ModelFacts:
    """``facts`` with the exact counts of the tensors in the file."""
    total = sum(values for values, _ in tensors.values())
    experts = sum(values for name, (values, _) in tensors.items() if "_exps." in name)
    chosen = experts * facts.experts_per_token / facts.experts if facts.experts else 0.0
    stored = sum(size for _, size in tensors.values())
    bits = 8.0 * stored / max(total, 1)
    precision = next((name for name, least in (("f32", 24.0), ("bf16", 12.0), ("int8", 6.5)) if bits > least), "int4")
    return replace(
        facts,
        parameters=float(total),
        active_parameters=total - experts + chosen,
        expert_parameters=float(experts),
        native_precision=precision,
        file_bytes=stored,
    )


def _header(stream: BinaryIO) -> tuple[dict[str, Any], dict[str, tuple[int, float]]]:
    """Pairs (an array is its length, or its items if they are few numbers), and values and bytes of each tensor."""
    if stream.read(4) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    _, tensors, pairs = struct.unpack("<IQQ", _exactly(stream, 20))
    if pairs > MOST_PAIRS or tensors > MOST_TENSORS:
        raise ValueError(f"{pairs} pairs and {tensors} tensors in the header")
    found: dict[str, Any] = {}
    for _ in range(pairs):
        key = _string(stream)
        (kind,) = struct.unpack("<I", _exactly(stream, 4))
        found[key] = _value(stream, kind)
    sizes: dict[str, tuple[int, float]] = {}
    for _ in range(tensors):
        name = _string(stream)
        (dimensions,) = struct.unpack("<I", _exactly(stream, 4))
        if dimensions > MOST_DIMENSIONS:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        *shape, kind, _ = struct.unpack(f"<{dimensions}QIQ", _exactly(stream, 8 * dimensions + 12))
        size, values = BLOCKS.get(kind, (2, 1))
        sizes[name] = (prod(shape), prod(shape) * size / values)
    return found, sizes


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise ValueError("the file ends inside its header")
    return data


def _string(stream: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", _exactly(stream, 8))
    if length > MOST_STRING_BYTES:
        raise ValueError(f"a string of {length} bytes in the header")
    return _exactly(stream, length).decode("utf-8", "replace")


def _value(stream: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _string(stream)
    if kind == ARRAY:
        item, count = struct.unpack("<IQ", _exactly(stream, 12))
        if count > MOST_ITEMS:
            raise ValueError(f"an array of {count} items in the header")
        if item in SCALARS:
            items = struct.unpack(f"<{count}{SCALARS[item]}", _exactly(stream, count * struct.calcsize("<" + SCALARS[item])))
            return [int(each) for each in items] if 0 < count <= 4096 else count
        for _ in range(count):
            _value(stream, item)
        return count
    if kind not in SCALARS:
        raise ValueError(f"unknown value kind {kind} in the header")
    return struct.unpack("<" + SCALARS[kind], _exactly(stream, struct.calcsize("<" + SCALARS[kind])))[0]
