"""Accelerators and models in words and as JSON, for ``setpoint hardware list`` and ``show``."""

from __future__ import annotations

from typing import Any

from setpoint.hardware.accelerator import Accelerator
from setpoint.hardware.deployment import Deployment, kv_capacity_tokens
from setpoint.hardware.model_facts import ModelFacts
from setpoint.hardware.step_time import bound_by, breakdown, physical_timer, step_s, step_timer
from setpoint.policy.decisions import StepWork

# Steps that show what binds: requests in it, and the context of each.
SHOWN_BATCHES = (1, 8, 32, 128)
SHOWN_CONTEXT_TOKENS = 2048
SHOWN_PROMPT_TOKENS = 2048


def error_words(relative_error: float, guess: bool) -> str:
    """What follows "a step is": how far a prediction may be off, or that how far is no more than a guess."""
    return f"right to about {relative_error:.0%} ({'a guess' if guess else 'one standard deviation'})"


def accelerator_as_dict(device: Accelerator) -> dict[str, Any]:
    """All fields, in the units of the fields."""
    return {
        "name": device.name,
        "kind": device.kind,
        "vendor": device.vendor,
        "flops_per_s": dict(device.flops_per_s),
        "memory_bytes": device.memory_bytes,
        "memory_bytes_per_s": device.memory_bytes_per_s,
        "link_bytes_per_s": device.link_bytes_per_s,
        "power_w": device.power_w,
        "price_usd_per_h": device.price_usd_per_h,
        "price_date": device.price_date,
        "price_source": device.price_source,
        "spec_source": device.spec_source,
    }


def model_as_dict(model: ModelFacts) -> dict[str, Any]:
    """What a plan needs to know of ``model``."""
    return {
        "name": model.name,
        "family": model.family,
        "layers": model.layers,
        "parameters": model.parameters,
        "active_parameters": model.active_parameters,
        "experts": model.experts,
        "experts_per_token": model.experts_per_token,
        "native_precision": model.native_precision,
        "weight_bytes": model.weight_bytes(model.native_precision),
        "kv_bytes_per_token": model.kv_bytes_per_token("bf16"),
        "flops_per_token": model.flops_per_token,
        "context_tokens": model.context_tokens,
    }


def deployment_as_dict(deployment: Deployment) -> dict[str, Any]:
    """What fits and how long steps take: decodes at ``SHOWN_CONTEXT_TOKENS`` of context, and a prompt alone."""
    timer = step_timer(deployment)
    physical = physical_timer(deployment)
    works = {
        f"decode {count}": StepWork(count, count, count * SHOWN_CONTEXT_TOKENS, count * SHOWN_CONTEXT_TOKENS)
        for count in SHOWN_BATCHES
    }
    works[f"prompt {SHOWN_PROMPT_TOKENS}"] = StepWork(SHOWN_PROMPT_TOKENS, 1, SHOWN_PROMPT_TOKENS, SHOWN_PROMPT_TOKENS**2)
    return {
        "model": deployment.model.name,
        "accelerator": deployment.accelerator.name,
        "engine": deployment.engine,
        "devices": deployment.devices,
        "weight_precision": deployment.weight_precision,
        "kv_precision": deployment.kv_precision,
        "kv_capacity_tokens": kv_capacity_tokens(deployment),
        "source": timer.source,
        "relative_error": timer.relative_error,
        "relative_error_is_guess": timer.guess,
        "steps": [
            {
                "step": name,
                "seconds": step_s(timer, work),
                "bound_by": bound_by(deployment, work),
                "parts_s": breakdown(deployment, work, physical),
            }
            for name, work in works.items()
        ],
    }
