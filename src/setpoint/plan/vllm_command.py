"""A ``vllm serve`` command as somebody runs it today: what it says about the replica and its scheduler.

Flags the plan has no use for are kept as they are and named; a value that cannot be read is one clear sentence.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from setpoint.plan.errors import PlanError

MOST_WORDS = 400
LARGE_MEMORY_BYTES = 70 * 2**30
LARGEST_MEMORY_BYTES = 160 * 2**30
EXAMPLE = "'vllm serve meta-llama/Llama-3.1-8B-Instruct --tensor-parallel-size 1'"

ALIASES = {
    "tp": "tensor-parallel-size",
    "pp": "pipeline-parallel-size",
    "dp": "data-parallel-size",
    "q": "quantization",
    "sc": "speculative-config",
}
"""Short names of vLLM's own."""

PRECISIONS = {
    "fp8": "fp8", "fbgemm_fp8": "fp8", "modelopt": "fp8", "ptpc_fp8": "fp8", "compressed-tensors": "fp8",
    "modelopt_fp4": "fp4", "mxfp4": "fp4",
    "awq": "int4", "awq_marlin": "int4", "gptq": "int4", "gptq_marlin": "int4", "bitsandbytes": "int4",
}  # fmt: skip

COUNTS = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size", "max-num-seqs", "max-num-batched-tokens")
FLAGS = {"enable-prefix-caching", "no-enable-prefix-caching", "enable-chunked-prefill", "no-enable-chunked-prefill",
         "enforce-eager", "trust-remote-code", "async-scheduling", "disable-log-stats", "disable-log-requests"}  # fmt: skip
USED = {*COUNTS, "max-model-len", "gpu-memory-utilization", "quantization", "kv-cache-dtype", "model", "served-model-name"}
NOT_SIMULATED = {
    "async-scheduling", "attention-backend", "block-size", "compilation-config", "cpu-offload-gb", "disable-sliding-window",
    "enable-dbo", "enable-eplb", "enable-expert-parallel", "enable-lora", "enforce-eager", "hf-overrides",
    "kv-cache-memory-bytes", "kv-offloading-size", "kv-transfer-config", "long-prefill-token-threshold",
    "max-long-partial-prefills", "max-num-partial-prefills", "no-async-scheduling", "no-enable-chunked-prefill",
    "num-gpu-blocks-override", "num-scheduler-steps", "rope-scaling", "scheduling-policy", "stream-interval",
}  # fmt: skip
"""Flags that change how long steps take, what is in them or what fits; those of speculation by their first word."""


@dataclass(frozen=True, slots=True)
class VllmCommand:
    """What a command says; ``None`` where it says nothing and vLLM chooses.

    extra: flags that the plan neither uses nor changes, by name.
    """

    model: str
    tensor_parallel: int = 1
    replicas: int = 1
    max_running: int | None = None
    token_budget: int | None = None
    max_model_tokens: int | None = None
    memory_share: float = 0.9
    weight_precision: str | None = None
    kv_precision: str | None = None
    prefix_caching: bool = True
    extra: Mapping[str, str] = field(default_factory=dict)


def parse_vllm_command(text: str) -> VllmCommand:
    """``vllm serve MODEL ...``, also with variables in front or as ``python -m vllm.entrypoints...``. Raises ``PlanError``."""
    model, options = _options(_words(text))
    if options.get("pipeline-parallel-size", "1") != "1":
        raise PlanError(
            f"--improve: --pipeline-parallel-size {options['pipeline-parallel-size']}: pipeline stages are not simulated; "
            "give the command with tensor parallelism alone"
        )
    counts = {name: _count(options, name) for name in COUNTS}
    kv_type = options.get("kv-cache-dtype", "auto")
    quantization = options.get("quantization")
    return VllmCommand(
        model=model,
        tensor_parallel=counts["tensor-parallel-size"] or 1,
        replicas=counts["data-parallel-size"] or 1,
        max_running=counts["max-num-seqs"],
        token_budget=counts["max-num-batched-tokens"],
        max_model_tokens=_length(options.get("max-model-len")),
        memory_share=_share(options.get("gpu-memory-utilization", "0.9")),
        weight_precision=None if quantization is None else _precision(quantization),
        kv_precision=None if kv_type == "auto" else "fp8" if kv_type.startswith("fp8") else "bf16",
        prefix_caching="no-enable-prefix-caching" not in options,
        extra={name: value for name, value in options.items() if name not in USED},
    )


def changes_behaviour(name: str) -> bool:
    """Whether a flag that is not simulated changes what a server does, ``speculative-config.method`` included."""
    return name.partition(".")[0] in NOT_SIMULATED or name.startswith("speculative")


def default_max_running(memory_bytes: float, hardware: str) -> int:
    """vLLM's own ``--max-num-seqs`` for a server: 1,024 on a large card other than an A100, else 256."""
    return 1024 if _is_large(memory_bytes, hardware) else 256


def default_token_budget(memory_bytes: float, hardware: str) -> int:
    """vLLM's own ``--max-num-batched-tokens`` for a server.

    16,384 on cards of 160 GiB and more (since vLLM 0.28), 8,192 on other large ones but the A100, else 2,048.
    """
    if memory_bytes >= LARGEST_MEMORY_BYTES:
        return 16384
    return 8192 if _is_large(memory_bytes, hardware) else 2048


def _is_large(memory_bytes: float, hardware: str) -> bool:
    return memory_bytes >= LARGE_MEMORY_BYTES and "a100" not in hardware


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise PlanError(f"--improve: the command cannot be read ({error}); quote it as a whole, such as {EXAMPLE}") from None
    while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
        words.pop(0)
    if len(words) > MOST_WORDS:
        raise PlanError(f"--improve: {len(words)} words; allowed: at most {MOST_WORDS}")
    if words[:2] == ["vllm", "serve"]:
        return words[2:]
    if len(words) > 2 and words[1] == "-m" and words[2].startswith("vllm.entrypoints"):
        return words[3:]
    shown = shlex.join(words[:3]) or "nothing"
    raise PlanError(f"--improve: found {shown!r}; allowed: a command that begins with vllm serve, such as {EXAMPLE}")


def _options(words: list[str]) -> tuple[str, dict[str, str]]:
    """The model and every option by its long name; of one given twice the last counts, as for vLLM."""
    options: dict[str, str] = {}
    positional: list[str] = []
    place = 0
    while place < len(words):
        word = words[place]
        place += 1
        if not word.startswith("-"):
            positional.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = ALIASES.get(name, name).replace("_", "-")
        if not equals and name not in FLAGS:
            first = place
            while place < len(words) and not words[place].startswith("-") and (place == first or name == "served-model-name"):
                place += 1
            value = " ".join(words[first:place])
        options[name] = value
    model = options.get("model") or (positional[0] if positional else "")
    if not model:
        raise PlanError(f"--improve: the command names no model; such as {EXAMPLE}")
    return model, options


def _count(options: Mapping[str, str], name: str) -> int | None:
    text = options.get(name)
    if text is None:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 1 << 20:
        raise PlanError(f"--improve: --{name}: found {text!r}; allowed: a whole number of at least 1")
    return int(text)


def _length(text: str | None) -> int | None:
    """vLLM's lengths: ``8192``, ``32k`` (thousands), ``32K`` (1,024), ``auto``."""
    if text is None or text in ("auto", "-1"):
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text)
    if match is None:
        raise PlanError(f"--improve: --max-model-len: found {text!r}; allowed: a number of tokens such as 8192 or 32k")
    return int(float(match[1]) * {"": 1, "k": 1000, "K": 1024, "m": 10**6, "M": 2**20}[match[2]])


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise PlanError(f"--improve: --gpu-memory-utilization: found {text!r}; allowed: a fraction above 0, at most 1")
    return share


def _precision(name: str) -> str:
    if name not in PRECISIONS:
        raise PlanError(f"--improve: --quantization {name}: not known here; known are {', '.join(PRECISIONS)}")
    return PRECISIONS[name]
