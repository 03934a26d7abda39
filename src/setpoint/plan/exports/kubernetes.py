"""A Kubernetes manifest: a Deployment of the replicas and a Service in front of them."""

from __future__ import annotations

import re
from typing import Any

from setpoint.plan.exports.commands import LISTEN, VARIABLE, vllm_arguments
from setpoint.plan.exports.deployable import Deployable
from setpoint.plan.exports.plain_yaml import plain_yaml

PORT = 8000
LABEL = "setpoint.dev/requirement"
STARTUP_CHECKS, STARTUP_PERIOD_S = 180, 10
IMAGES = {"nvidia.com/gpu": "vllm/vllm-openai:latest", "amd.com/gpu": "rocm/vllm:latest"}


def manifest(plan: Deployable) -> str:
    """The manifest as YAML text, one document each for Deployment and Service, under comments that say what it leaves out.

    Every object and pod is labelled with the requirement's id; the server has it as a second model name as well.
    """
    head = [f"# Requirement {plan.requirement_id}; {plan.topology.name}."]
    head += [f"# {note}" for note in plan.notes() if not note.startswith("Run ")]
    documents = plain_yaml([_deployment(plan), _service(plan)])
    return "\n".join([*head, documents])


def object_name(plan: Deployable) -> str:
    """A DNS label made from the served model's name and the requirement's id; names of services begin with a letter."""
    words = re.sub(r"[^a-z0-9]+", "-", plan.served_name.lower()).strip("-")
    words = f"model-{words}" if words[:1].isdigit() else words
    return f"{words[:40].strip('-') or 'model'}-{plan.requirement_id}"


def _deployment(plan: Deployable) -> dict[str, Any]:
    pool = plan.topology.pool
    labels = {"app.kubernetes.io/name": object_name(plan), LABEL: plan.requirement_id}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": object_name(plan), "labels": labels},
        "spec": {
            "replicas": pool.replicas,
            "selector": {"matchLabels": {"app.kubernetes.io/name": object_name(plan)}},
            "template": {
                "metadata": {"labels": labels, "annotations": {"setpoint.dev/plan": plan.topology.name}},
                "spec": {
                    "containers": [_container(plan)],
                    # Tensor-parallel workers talk through shared memory; the default of 64 MiB is too small for it.
                    "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}],
                },
            },
        },
    }


def _container(plan: Deployable) -> dict[str, Any]:
    resource = _resource(plan.topology.pool.shape.hardware)
    arguments = ["--model", plan.model, "--served-model-name", plan.served_name, plan.requirement_id]
    arguments += ["--host", LISTEN, "--port", str(PORT)]
    for name, value in vllm_arguments(plan).items():
        arguments += [f"--{name}", value] if value else [f"--{name}"]
    probe = {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": STARTUP_PERIOD_S}
    return {
        "name": "engine",
        "image": IMAGES[resource],
        "command": ["python3", "-m", "vllm.entrypoints.openai.api_server"],
        "args": arguments,
        "env": [{"name": VARIABLE, "value": plan.requirement_id}],
        "ports": [{"containerPort": PORT, "name": "http"}],
        "resources": {"limits": {resource: plan.topology.pool.shape.gpus}},
        "startupProbe": {**probe, "failureThreshold": STARTUP_CHECKS},
        "readinessProbe": dict(probe),
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }


def _service(plan: Deployable) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": object_name(plan), "labels": {LABEL: plan.requirement_id}},
        "spec": {
            "selector": {"app.kubernetes.io/name": object_name(plan)},
            "ports": [{"name": "http", "port": PORT, "targetPort": "http"}],
        },
    }


def _resource(hardware: str) -> str:
    return "amd.com/gpu" if hardware.startswith("mi3") else "nvidia.com/gpu"
