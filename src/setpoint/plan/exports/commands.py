"""Ready server commands: vLLM and SGLang. Flags as in the engines' own lists of server arguments."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping

from setpoint.hardware.deployment import Deployment, device_weight_bytes, kv_capacity_bytes
from setpoint.plan.exports.deployable import KV_TYPES, MEMORY_SHARE, QUANTISED_ON_LOAD, Deployable
from setpoint.plan.exports.speculation import draft_length, sglang_speculation, vllm_speculation

VARIABLE = "SETPOINT_REQUIREMENT"
LISTEN = "0.0.0.0"


def vllm_arguments(plan: Deployable) -> dict[str, str]:
    """Options of ``vllm serve`` by name; an empty value is a flag."""
    pool = plan.topology.pool
    deployment, config = pool.shape.deployment, pool.serving.config
    options = {
        "tensor-parallel-size": str(deployment.tensor_parallel),
        "max-num-seqs": str(config.max_running),
        "max-num-batched-tokens": str(max(config.token_budget, config.max_running * (1 + draft_length(plan)))),
        "max-model-len": str(plan.max_model_tokens),
        "gpu-memory-utilization": f"{MEMORY_SHARE:g}",
        "enable-prefix-caching": "",
    }
    if plan.quantises:
        options["quantization"] = QUANTISED_ON_LOAD[deployment.weight_precision]
    if deployment.kv_precision in KV_TYPES:
        options["kv-cache-dtype"] = KV_TYPES[deployment.kv_precision]
    speculation = vllm_speculation(plan)
    if speculation:
        options["speculative-config"] = json.dumps(speculation)
    return options


def vllm_command(plan: Deployable) -> str:
    """A ``vllm serve`` line for one replica, under comments that say what it leaves out.

    The requirement's id is a second name of the served model, so that ``/v1/models`` tells it to whoever measures.
    """
    words = ["vllm", "serve", plan.model, "--served-model-name", plan.served_name, plan.requirement_id]
    return _shell(plan, [*words, *_options(vllm_arguments(plan))])


def sglang_command(plan: Deployable) -> str:
    """An SGLang launch line for one replica, under comments that say what it leaves out."""
    pool = plan.topology.pool
    deployment, config = pool.shape.deployment, pool.serving.config
    options = {
        "model-path": plan.model,
        "served-model-name": plan.served_name,
        "tp-size": str(deployment.tensor_parallel),
        "max-running-requests": str(config.max_running),
        "chunked-prefill-size": str(config.token_budget),
        "context-length": str(plan.max_model_tokens),
        "mem-fraction-static": f"{_static_share(deployment):g}",
    }
    if plan.quantises:
        options["quantization"] = QUANTISED_ON_LOAD[deployment.weight_precision]
    if deployment.kv_precision in KV_TYPES:
        options["kv-cache-dtype"] = "fp8_e4m3"
    options |= sglang_speculation(plan)
    return _shell(plan, ["python", "-m", "sglang.launch_server", *_options(options)])


def _static_share(deployment: Deployment) -> float:
    """Of a device's memory what weights and planned cache take, all that SGLang counts here; rounded down to a hundredth."""
    planned = device_weight_bytes(deployment) + max(0.0, kv_capacity_bytes(deployment, memory_share=MEMORY_SHARE))
    return max(1, math.floor(100.0 * planned / deployment.accelerator.installed_bytes)) / 100.0


def _options(options: Mapping[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", value) if word]


def _shell(plan: Deployable, words: Iterable[str]) -> str:
    head = [f"# Requirement {plan.requirement_id}; {plan.topology.name}.", *(f"# {note}" for note in plan.notes())]
    return "\n".join([*head, f"{VARIABLE}={plan.requirement_id} {shlex.join(words)}", ""])
