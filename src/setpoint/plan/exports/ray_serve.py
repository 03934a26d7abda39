"""A Ray Serve configuration: ``serve run FILE`` brings up an OpenAI-compatible application of the replicas."""

from __future__ import annotations

import json
from typing import Any

from setpoint.plan.exports.commands import VARIABLE, vllm_arguments
from setpoint.plan.exports.deployable import Deployable
from setpoint.plan.exports.plain_yaml import plain_yaml

BUILDER = "ray.serve.llm:build_openai_app"
ACCELERATOR_TYPES = {
    "a100-40": "A100-40G",
    "a100-80": "A100-80G",
    "h100-sxm": "H100",
    "h100-pcie": "H100",
    "h100-nvl": "H100",
    "h200": "H200",
    "b200": "B200",
    "mi300x": "AMD-Instinct-MI300X-OAM",
    "mi325x": "AMD-Instinct-MI325X-OAM",
    "mi355x": "AMD-Instinct-MI355X-OAM",
    "l4": "L4",
    "l40s": "L40S",
    "a10g": "A10G",
}
"""Ray's names for accelerators; what it has no name for is left to the cluster's own labels."""

NUMBERS = {"tensor-parallel-size", "max-num-seqs", "max-num-batched-tokens", "max-model-len"}


def ray_serve_config(plan: Deployable) -> str:
    """The configuration as YAML text. The application's name carries the requirement's id, and so does a variable."""
    application: dict[str, Any] = {
        "name": plan.requirement_id,
        "route_prefix": "/",
        "import_path": BUILDER,
        "runtime_env": {"env_vars": {VARIABLE: plan.requirement_id}},
        "args": {"llm_configs": [_model(plan)]},
    }
    head = [f"# Requirement {plan.requirement_id}; {plan.topology.name}."]
    head += [f"# {note}" for note in plan.notes() if not note.startswith("Run ")]
    return "\n".join([*head, plain_yaml([{"applications": [application]}])])


def _model(plan: Deployable) -> dict[str, Any]:
    pool = plan.topology.pool
    model: dict[str, Any] = {
        "model_loading_config": {"model_id": plan.served_name, "model_source": plan.model},
        "deployment_config": {"num_replicas": pool.replicas},
        "engine_kwargs": {name.replace("-", "_"): _value(name, text) for name, text in vllm_arguments(plan).items()},
    }
    accelerator_type = ACCELERATOR_TYPES.get(pool.shape.hardware)
    if accelerator_type is not None:
        model["accelerator_type"] = accelerator_type
    return model


def _value(name: str, text: str) -> Any:
    if not text:
        return True
    if name == "speculative-config":
        return json.loads(text)
    if name in NUMBERS:
        return int(text)
    return float(text) if name == "gpu-memory-utilization" else text
