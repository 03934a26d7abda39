"""Turn a GGUF file of the Llama architecture into the folder of files that vLLM loads.

    python gguf_to_hf.py MODEL.gguf FOLDER

Run it with the Python of an environment that has ``gguf``, ``torch``, ``safetensors`` and ``tokenizers`` (vLLM's own has
all but the first). Weights are dequantised to bfloat16. The tokenizer is rebuilt for byte-level BPE vocabularies whose
pre-tokenizer splits off single digits (``smollm``); others are refused, for a tokenizer that is nearly right would be
worse than none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import safetensors.torch
import tokenizers
import torch

CONTROL_TOKEN = 3
WHOLE_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def main() -> None:
    """Read the file, write the folder."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    reader = gguf.GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if fields["general.architecture"] != "llama":
        sys.exit(f"{source}: the architecture is {fields['general.architecture']}, only llama is understood")
    folder.mkdir(parents=True, exist_ok=True)
    config = model_config(fields)
    weights = dict(named_weights(tensor, config) for tensor in reader.tensors)
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {"eos_token_id": config["eos_token_id"]})
    tokenizer(fields).save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", tokenizer_config(fields))


def model_config(fields: dict[str, Any]) -> dict[str, Any]:
    """``config.json`` of a Llama model."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": fields["llama.rope.freq_base"],
        "vocab_size": fields["llama.vocab_size"],
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }


def named_weights(tensor: Any, config: dict[str, Any]) -> tuple[str, torch.Tensor]:
    """Name and weights of one tensor as the checkpoint of a Llama model has them."""
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    if tensor.name in WHOLE_NAMES:
        name = WHOLE_NAMES[tensor.name]
    else:
        _, layer, part, _ = tensor.name.split(".")
        name = f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"
        if part in ("attn_q", "attn_k"):
            values = halves_apart(values, config["num_attention_heads" if part == "attn_q" else "num_key_value_heads"])
    return name, torch.from_numpy(np.array(values, dtype=np.float32, order="C")).to(torch.bfloat16)


def halves_apart(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head as rotary embeddings in two halves want them; GGUF has the pairs next to each other."""
    rows, columns = weights.shape
    return weights.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tokenizer(fields: dict[str, Any]) -> tokenizers.Tokenizer:
    """The byte-level BPE tokenizer."""
    kind = (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"])
    if kind != ("gpt2", "smollm"):
        sys.exit(f"the tokenizer is {kind}, only ('gpt2', 'smollm') is understood")
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={token: at for at, token in enumerate(tokens)}, merges=merges))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    types = fields["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL_TOKEN]
    made.add_special_tokens([tokenizers.AddedToken(token, special=True) for token in control])
    return made


def tokenizer_config(fields: dict[str, Any]) -> dict[str, Any]:
    """``tokenizer_config.json``."""
    tokens = fields["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[fields["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[fields["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[fields["tokenizer.ggml.padding_token_id"]],
        "chat_template": fields["tokenizer.chat_template"],
        "model_max_length": fields["llama.context_length"],
    }


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as JSON."""
    path.write_text(json.dumps(value, indent=2))


if __name__ == "__main__":
    main()
