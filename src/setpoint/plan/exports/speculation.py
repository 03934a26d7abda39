"""Speculation as flags of vLLM (``--speculative-config``, a JSON object) and of SGLang (``--speculative-...``)."""

from __future__ import annotations

from typing import Any

from setpoint.plan.exports.deployable import Deployable
from setpoint.policy.configuration import SpeculationMode

LOOKUP_MOST, LOOKUP_LEAST = 4, 1
"""Tokens at the end of a text that are looked for earlier in it: as setpoint's own prompt lookup."""


def draft_length(plan: Deployable) -> int:
    """How many tokens these engines draft in every step; 0: they do not speculate."""
    serving = plan.topology.pool.serving
    if serving.config.speculation is SpeculationMode.OFF or serving.guesses is None:
        return 0
    return serving.config.draft_tokens or serving.guesses.likely_tokens


def vllm_speculation(plan: Deployable) -> dict[str, Any]:
    """The fields of ``--speculative-config``; empty without speculation."""
    serving, length = plan.topology.pool.serving, draft_length(plan)
    if not length:
        return {}
    if serving.config.speculation is SpeculationMode.PROMPT_LOOKUP:
        bounds = {"prompt_lookup_max": LOOKUP_MOST, "prompt_lookup_min": LOOKUP_LEAST}
        return {"method": "ngram", "num_speculative_tokens": length, **bounds}
    found: dict[str, Any] = {"method": "draft_model", "model": serving.config.draft_model, "num_speculative_tokens": length}
    draft = serving.guesses.draft if serving.guesses is not None else None
    if draft is not None:
        found["draft_tensor_parallel_size"] = draft.tensor_parallel
    return found


def sglang_speculation(plan: Deployable) -> dict[str, str]:
    """SGLang's flags by name: a chain of guesses, each step of the draft model one, the model's own token counted as well."""
    config, length = plan.topology.pool.serving.config, draft_length(plan)
    if not length:
        return {}
    if config.speculation is SpeculationMode.PROMPT_LOOKUP:
        return {"speculative-algorithm": "NGRAM", "speculative-num-draft-tokens": str(length + 1)}
    return {
        "speculative-algorithm": "STANDALONE",
        "speculative-draft-model-path": str(config.draft_model),
        "speculative-num-steps": str(length),
        "speculative-eagle-topk": "1",
        "speculative-num-draft-tokens": str(length + 1),
    }
