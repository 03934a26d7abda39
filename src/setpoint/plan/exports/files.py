"""All exports of a plan as files by name."""

from __future__ import annotations

from setpoint.plan.exports.commands import sglang_command, vllm_command
from setpoint.plan.exports.deployable import Deployable
from setpoint.plan.exports.kubernetes import manifest
from setpoint.plan.exports.ray_serve import ray_serve_config
from setpoint.plan.exports.serve_config import serve_config_json

OWN_HARDWARE = "this-machine"
EXPORTED = ("serve-*.json", "vllm.sh", "sglang.sh", "kubernetes.yaml", "ray-serve.yaml")
"""Patterns of all names that ``export_files`` gives."""


def export_files(plan: Deployable) -> dict[str, str]:
    """File names and their texts; on this machine only setpoint's own, elsewhere the engines' as well."""
    files = {f"serve-{plan.requirement_id}.json": serve_config_json(plan)}
    if plan.topology.pool.shape.hardware != OWN_HARDWARE:
        files |= {
            "vllm.sh": vllm_command(plan),
            "sglang.sh": sglang_command(plan),
            "kubernetes.yaml": manifest(plan),
            "ray-serve.yaml": ray_serve_config(plan),
        }
    return files
