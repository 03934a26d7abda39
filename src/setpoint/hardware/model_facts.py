"""What a model asks of hardware: parameters, KV bytes a token, operations a token.

Counts follow from the architecture (``model_config.py`` has them from a Hugging Face ``config.json``, ``gguf_header.py`` from a
GGUF file). One multiply-add is two operations.
"""

from __future__ import annotations

from dataclasses import dataclass

from setpoint.hardware.errors import HardwareError

# Bytes a parameter with its scales: fp8 has 4 bytes to 128 x 128 values, nvfp4 one byte to 16 (mxfp4: to 32), int4 two to 32.
PARAMETER_BYTES = {"f32": 4.0, "bf16": 2.0, "fp8": 1.0003, "int8": 1.03, "fp4": 0.5625, "int4": 0.5625}
MXFP4_BYTES = 0.53125
EXPERTS_ONLY = {"fp4", "int4"}
KV_BYTES = {"f32": 4.0, "bf16": 2.0, "fp8": 1.0, "int8": 1.06, "fp4": 0.5625}
PRECISION_NAMES = {
    "fp16": "bf16", "f16": "bf16", "float16": "bf16", "bfloat16": "bf16", "auto": "bf16", "": "bf16", "none": "bf16",
    "fp8_block": "fp8", "fp8_static": "fp8", "w8a8_fp8": "fp8", "fp8_ootb": "fp8", "float8": "fp8", "fp8_e4m3": "fp8",
    "nvfp4": "fp4", "mxfp4": "fp4", "w4a16_mxfp4": "fp4", "w4a8_mxfp4_mxfp8": "fp4", "float4": "fp4",
    "int4_wo": "int4", "w4a16": "int4", "w4afp8": "int4", "awq": "int4", "gptq": "int4", "q4_0": "int4", "q4": "int4",
    "int8_wo": "int8", "sq": "int8", "w8a8": "int8", "q8_0": "int8", "u8": "int8",
    "float32": "f32", "fp32": "f32",
}  # fmt: skip


class UnknownModel(HardwareError):
    """No such model; the message says what would be one."""


def precision_name(text: str) -> str:
    """Which of ``f32``, ``bf16``, ``fp8``, ``int8``, ``fp4``, ``int4`` is meant by ``text``. Raises ``HardwareError``."""
    name = text.strip().lower()
    name = PRECISION_NAMES.get(name, name)
    if name not in PARAMETER_BYTES:
        raise HardwareError(f"precision {text!r} is not known: choose from {', '.join(PARAMETER_BYTES)}")
    return name


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The architecture of one model.

    parameters: all of them; active_parameters: those one token passes through (all but the experts it is not routed to).
    expert_parameters: of all routed experts of all layers; experts: routed ones in a layer, experts_per_token of them chosen
    (both 0 for a dense model). embedding_parameters: the input table, of which a token reads one row (0 if it is also
    the output matrix). kv_values_per_token: keys and values that one token keeps in layers that keep all of them;
    window_values_per_token: in layers that keep the last ``window_tokens``. kv_parts: into how many pieces the cache can be cut
    by tensor parallelism (1: every device holds all of it, as with MLA). state_bytes: kept a sequence, whatever its length and
    the precision of the cache; state_parts: into how many pieces that can be cut. fp4_bytes: of a parameter of 4 bits with its
    scales.
    attention_flops: operations a pair of query and context token, over all full layers (window layers apart).
    native_precision: of the weights as published. family: models whose kernels are the same.
    """

    name: str
    family: str
    layers: int
    hidden: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int
    parameters: float
    active_parameters: float
    expert_parameters: float
    embedding_parameters: float
    experts: int
    experts_per_token: int
    moe_layers: int
    kv_values_per_token: float
    window_values_per_token: float
    window_tokens: int
    kv_parts: int
    state_bytes: float
    attention_flops: float
    window_attention_flops: float
    context_tokens: int
    native_precision: str = "bf16"
    file_bytes: float | None = None
    state_parts: int = 1
    fp4_bytes: float = PARAMETER_BYTES["fp4"]

    @property
    def shape(self) -> str:
        """The same for models that differ in their weights alone, such as DeepSeek-V3 and R1."""
        return f"{self.family}-{self.layers}x{self.hidden}" + (f"x{self.experts}" if self.experts else "")

    @property
    def dense_parameters(self) -> float:
        """Multiplied for every token on every step: all but the routed experts and the input table."""
        return self.parameters - self.expert_parameters - self.embedding_parameters

    def parts_bytes(self, precision: str) -> tuple[float, float, float]:
        """Bytes of the weights read for every token, of the routed experts, and of the input table.

        The tables at both ends stay in bf16 when the rest is narrower; with experts of 4 bits so does everything but the
        experts, as in the published gpt-oss, Kimi-K2.5 and NVFP4 checkpoints of DeepSeek.
        """
        name = precision_name(precision)
        narrow, wide = PARAMETER_BYTES[name], max(PARAMETER_BYTES["bf16"], PARAMETER_BYTES[name])
        narrow = self.fp4_bytes if name == "fp4" else narrow
        output = float(self.vocabulary * self.hidden)
        rest = wide if self.experts and name in EXPERTS_ONLY else narrow
        return (
            (self.dense_parameters - output) * rest + output * wide,
            self.expert_parameters * narrow,
            self.embedding_parameters * wide,
        )

    def weight_bytes(self, precision: str) -> float:
        """Bytes that hold the weights."""
        return sum(self.parts_bytes(precision))

    def can_be_split(self, parallel: int) -> bool:
        """Whether engines run it with tensor parallelism ``parallel``: heads are dealt out evenly, and KV heads are too or,
        where there are fewer, copied evenly."""
        fewer, more = sorted((self.kv_heads, parallel))
        return self.heads % parallel == 0 and more % fewer == 0

    def kv_bytes_per_token(self, kv_precision: str) -> float:
        """Bytes of cache a token takes while all layers keep it."""
        return (self.kv_values_per_token + self.window_values_per_token) * KV_BYTES[_kv_precision(kv_precision)]

    def kv_bytes(self, context_tokens: float, kv_precision: str) -> float:
        """Bytes of cache a sequence of ``context_tokens`` takes, its windows included, states apart."""
        values = self.kv_values_per_token * context_tokens
        if self.window_tokens:
            values += self.window_values_per_token * min(context_tokens, self.window_tokens)
        return values * KV_BYTES[_kv_precision(kv_precision)]

    @property
    def flops_per_token(self) -> float:
        """Operations of all matrix multiplications for one token, attention over its context apart."""
        return 2.0 * (self.active_parameters - self.embedding_parameters)

    def experts_read(self, tokens: float) -> float:
        """Share of the routed experts that at least one of ``tokens`` chooses, each choosing uniformly and alone."""
        if not self.experts:
            return 0.0
        return float(1.0 - (1.0 - self.experts_per_token / self.experts) ** max(tokens, 0.0))


def _kv_precision(text: str) -> str:
    name = PRECISION_NAMES.get(text.strip().lower(), text.strip().lower())
    if name not in KV_BYTES:
        raise HardwareError(f"precision of the KV cache {text!r} is not known: choose from {', '.join(KV_BYTES)}")
    return name


def model_facts(name_or_path: str) -> ModelFacts:
    """The facts of a bundled or the user's own model, a folder with ``config.json``, such a file, or a GGUF file.

    Raises ``UnknownModel``, and ``HardwareError`` for a file that cannot be read.
    """
    from setpoint.hardware.model_catalogue import find_model

    return find_model(name_or_path)
