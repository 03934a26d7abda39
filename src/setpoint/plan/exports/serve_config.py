"""setpoint's own serve configuration: what ``setpoint serve REQUIREMENT.yaml --config FILE`` reads."""

from __future__ import annotations

from setpoint.plan.exports.deployable import Deployable
from setpoint.policy.configuration import ServingConfig


def serve_config(plan: Deployable) -> ServingConfig:
    """The configuration of one replica, its KV cache as large as the plan found room for."""
    pool = plan.topology.pool
    return pool.serving.config.model_copy(update={"kv_cache_tokens": max(64, pool.shape.kv_tokens)})


def serve_config_json(plan: Deployable) -> str:
    """As JSON text. The configuration has no field for the requirement's id: the file's name carries it."""
    return serve_config(plan).model_dump_json(indent=2) + "\n"
