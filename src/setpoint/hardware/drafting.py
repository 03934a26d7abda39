"""What a draft model costs on the devices of the model that it guesses for.

A guess is one pass of the draft model over one token of every request; k guesses are k passes, one after the other. They belong
to one step of the engine: the host's share of a step (``Coefficients.step_s``: scheduling, inputs, outputs) is in the step that
verifies and not in a pass, where the two can be told apart. Everything else of a step, launches and collectives included, is in
each pass. Weights and cache of the draft model stand beside those of the model.

When it is wrong: an engine that prepares inputs between passes on the host is slower than that, one that captures all passes
in one graph faster; the output matrix is counted once a sequence and not for every token that is verified.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from setpoint.hardware.deployment import (
    Deployment,
    device_weight_bytes,
    kv_capacity_bytes,
    sequence_bytes,
)
from setpoint.hardware.errors import HardwareError
from setpoint.hardware.model_facts import ModelFacts
from setpoint.hardware.step_time import PhysicalTimer, StepTimer, step_s, step_timer
from setpoint.policy.decisions import StepWork


@dataclass(frozen=True, slots=True)
class CostSource:
    """Where a cost comes from: ``measured``, ``transferred`` or ``physics``; its error and whether that is a guess as in
    ``StepTimer``."""

    cost: str
    of: str
    source: str
    relative_error: float
    guess: bool


def draft_deployment(target: Deployment, draft: ModelFacts) -> Deployment:
    """``draft`` on the devices of ``target``, cut into as many parts where its heads allow, else whole on each.

    Raises ``HardwareError`` if it cannot guess for that model: another vocabulary, or not smaller.
    """
    check_draft(target.model, draft)
    parallel = target.tensor_parallel if draft.can_be_split(target.tensor_parallel) else 1
    return replace(target, model=draft, tensor_parallel=parallel, data_parallel=1, expert_parallel=1)


def check_draft(model: ModelFacts, draft: ModelFacts) -> None:
    """Raise ``HardwareError`` if ``draft`` cannot guess for ``model``."""
    if draft.vocabulary != model.vocabulary:
        raise HardwareError(
            f"draft model {draft.name}: its vocabulary has {draft.vocabulary:,} tokens, that of {model.name}"
            f" {model.vocabulary:,}: name a model with the same tokenizer"
        )
    if draft.active_parameters >= model.active_parameters:
        raise HardwareError(
            f"draft model {draft.name}: a token passes through {draft.active_parameters / 1e9:.3g} billion parameters, in"
            f" {model.name} through {model.active_parameters / 1e9:.3g}: name a smaller model, a guess must cost less than the"
            " answer"
        )


def pass_timer(draft: Deployment) -> StepTimer:
    """How long a pass of the draft model takes: its step without the host's share, where that is known apart."""
    timer = step_timer(draft)
    if isinstance(timer, PhysicalTimer):
        return replace(timer, coefficients=replace(timer.coefficients, step_s=0.0))
    return timer


def paired_kv_tokens(
    target: Deployment, draft: Deployment, *, memory_share: float = 0.9, context_tokens: float | None = None
) -> int:
    """Tokens of cache of the whole replica that both models keep; at most 0: they do not fit together.

    context_tokens: as ``deployment.kv_capacity_tokens`` has it.
    """
    free = kv_capacity_bytes(target, memory_share=memory_share) - device_weight_bytes(draft)
    each = target.kv_bytes_per_token_per_device + draft.kv_bytes_per_token_per_device
    if context_tokens is not None and context_tokens >= 1.0:
        each = (sequence_bytes(target, context_tokens) + sequence_bytes(draft, context_tokens)) / context_tokens
    return int(max(min(free / max(each, 1e-9) * target.data_parallel, 1e12), -1e12))


def verify_step_s(timer: StepTimer, requests: int, draft_tokens: int, context_tokens: int) -> float:
    """Seconds of a step of ``requests`` decodes with ``draft_tokens`` guesses of each."""
    each = 1 + draft_tokens
    context = context_tokens + each
    return step_s(timer, StepWork(requests * each, requests, requests * context, requests * each * context))


def drafting_s(timer: StepTimer, requests: int, draft_tokens: int, context_tokens: int) -> float:
    """Seconds of ``draft_tokens`` passes over ``requests`` requests; ``timer``: that of a pass."""
    contexts = range(context_tokens + 1, context_tokens + 1 + draft_tokens)
    return sum(step_s(timer, StepWork(requests, requests, requests * c, requests * c)) for c in contexts)
