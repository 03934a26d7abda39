"""One copy of a model on some devices: what of it fits where."""

from __future__ import annotations

from dataclasses import dataclass

from setpoint.hardware.accelerator import GPU, Accelerator
from setpoint.hardware.errors import HardwareError
from setpoint.hardware.model_facts import ModelFacts

ENGINES = ("setpoint", "vllm", "sglang", "trtllm")
# Held by a process and its runtime on each device beside weights and cache: context, workspaces, captured graphs, activations.
RESERVED_BYTES = {"setpoint": 0.3e9, "vllm": 3.0e9, "sglang": 3.5e9, "trtllm": 3.5e9}


@dataclass(frozen=True, slots=True)
class Deployment:
    """One replica.

    engine: one of ``ENGINES``. tensor_parallel: devices that share each layer. data_parallel: copies of the attention part
    that share one set of experts (1: none). expert_parallel: into how many parts whole experts are dealt out.
    """

    model: ModelFacts
    accelerator: Accelerator
    tensor_parallel: int
    engine: str
    weight_precision: str
    kv_precision: str = "bf16"
    data_parallel: int = 1
    expert_parallel: int = 1

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(ENGINES)}, found {self.engine!r}")
        if min(self.tensor_parallel, self.data_parallel, self.expert_parallel) < 1:
            raise ValueError("parallelism must be at least 1")

    @property
    def kernels(self) -> str:
        """Whose kernels run: on a GPU setpoint's policies run inside vLLM."""
        return "vllm" if self.engine == "setpoint" and self.accelerator.kind == GPU else self.engine

    @property
    def devices(self) -> int:
        """How many accelerators the replica takes."""
        return self.tensor_parallel * self.data_parallel

    @property
    def kv_shards(self) -> int:
        """Into how many parts the cache of one sequence is cut; more devices than that hold copies."""
        return min(self.tensor_parallel, self.model.kv_parts)

    @property
    def kv_bytes_per_token_per_device(self) -> float:
        """Bytes of cache one token takes on each device that holds it."""
        return self.model.kv_bytes_per_token(self.kv_precision) / self.kv_shards


def sequence_bytes(deployment: Deployment, context_tokens: float) -> float:
    """Bytes that a sequence of ``context_tokens`` takes on each device that holds a part of it: its cache and its state."""
    model = deployment.model
    states = model.state_bytes / min(deployment.tensor_parallel, model.state_parts)
    return model.kv_bytes(context_tokens, deployment.kv_precision) / deployment.kv_shards + states


def check_split(model: ModelFacts, parallel: int, option: str) -> None:
    """Raise ``HardwareError`` that names ``option`` if no engine runs ``model`` with tensor parallelism ``parallel``."""
    if parallel >= 1 and not model.can_be_split(parallel):
        raise HardwareError(
            f"{option} {parallel}: {model.name} has {model.heads} heads and {model.kv_heads} KV heads, which cannot be dealt "
            "out evenly to so many devices; choose a number that divides both"
        )


def check_link(device: Accelerator, parallel: int, option: str) -> None:
    """Raise ``HardwareError`` that names ``option`` if layers cannot be shared because nothing links such devices."""
    if parallel > 1 and not device.link_bytes_per_s:
        raise HardwareError(
            f"{option} {parallel}: {device.name} has no link between devices over which layers could be shared; leave it at 1, "
            "or choose other hardware"
        )


def device_weight_bytes(deployment: Deployment) -> float:
    """Bytes of weights on each device: experts are spread over all of them, the rest over those of tensor parallelism."""
    dense, experts, table = deployment.model.parts_bytes(deployment.weight_precision)
    return (dense + table) / deployment.tensor_parallel + experts / deployment.devices


def kv_capacity_bytes(deployment: Deployment, *, memory_share: float = 0.9) -> float:
    """Bytes for the cache on each device; negative: the weights do not fit."""
    usable = memory_share * deployment.accelerator.installed_bytes - RESERVED_BYTES[deployment.kernels]
    return usable - device_weight_bytes(deployment)


def kv_capacity_tokens(deployment: Deployment, *, memory_share: float = 0.9, context_tokens: float | None = None) -> int:
    """Tokens of cache of the whole replica; at most 0: the model does not fit.

    ``memory_share``: of the device's memory for weights, cache and all else (vLLM's ``gpu_memory_utilization``).
    context_tokens: how long sequences typically are, by which layers with windows or states count; ``None``: every layer keeps
    every token.
    """
    uneven = deployment.model.window_tokens or deployment.model.state_bytes
    if uneven and context_tokens is not None and context_tokens >= 1.0:
        tokens = kv_capacity_sequences(deployment, context_tokens, memory_share=memory_share) * context_tokens
    else:
        free = kv_capacity_bytes(deployment, memory_share=memory_share)
        tokens = free / max(deployment.kv_bytes_per_token_per_device, 1e-9) * deployment.data_parallel
    return int(max(min(tokens, 1e12), -1e12))


def kv_capacity_sequences(deployment: Deployment, context_tokens: float, *, memory_share: float = 0.9) -> float:
    """Sequences of ``context_tokens`` whose cache fits, windows and states counted as they are; at most 0: none."""
    free = kv_capacity_bytes(deployment, memory_share=memory_share) * deployment.data_parallel
    return free / max(sequence_bytes(deployment, context_tokens), 1e-9)
