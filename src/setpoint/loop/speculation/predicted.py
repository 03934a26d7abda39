"""The same profile for hardware that is not there: costs from its step-time model, acceptance as it was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from setpoint.hardware.accelerator import accelerator
from setpoint.hardware.deployment import Deployment, kv_capacity_tokens
from setpoint.hardware.drafting import (
    CostSource,
    draft_deployment,
    drafting_s,
    paired_kv_tokens,
    pass_timer,
    verify_step_s,
)
from setpoint.hardware.errors import HardwareError
from setpoint.hardware.model_facts import ModelFacts, model_facts, precision_name
from setpoint.hardware.step_time import step_timer
from setpoint.loop.errors import BadInput
from setpoint.loop.speculation.outcome import Acceptance, SpeculationProfile, StepCosts

PARALLEL: Final = (1, 2, 4, 8)
BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTEXT_TOKENS: Final = 1024


@dataclass(frozen=True, slots=True)
class There:
    """Which hardware, and how the models stand on it. ``tensor_parallel``: ``None`` is as few devices as hold both models."""

    hardware: str
    engine: str = "vllm"
    tensor_parallel: int | None = None
    precision: str | None = None
    kv_precision: str = "bf16"


def predicted_profile(
    model: str,
    draft_model: str | None,
    acceptances: Sequence[Acceptance],
    there: There,
    *,
    batches: Sequence[int] = BATCHES,
    context_tokens: int = CONTEXT_TOKENS,
) -> SpeculationProfile:
    """The profile. Without a draft model guesses are free (prompt lookup). Batches whose contexts do not fit into the cache are
    left out. Raises ``HardwareError`` and ``BadInput``."""
    target, draft = deployments(model, draft_model, there)
    room = _room(target, draft, context_tokens)
    fitting = [batch for batch in batches if batch * context_tokens <= room]
    if not fitting:
        raise BadInput(
            f"--context-tokens: the cache of {target.devices} x {target.accelerator.name} holds {room} tokens, too few for"
            f" {min(batches)} requests with {context_tokens} each"
        )
    timer = step_timer(target)
    passes = None if draft is None else pass_timer(draft)
    longest = max(len(each.survival) for each in acceptances)
    costs = []
    for batch in fitting:
        verify = {k: verify_step_s(timer, batch, k, context_tokens) for k in range(longest + 1)}
        drafting = {} if passes is None else {k: drafting_s(passes, batch, k, context_tokens) for k in range(1, longest + 1)}
        costs.append(StepCosts(batch, verify, drafting))
    where = f"{target.devices} x {target.accelerator.name} {target.weight_precision}, {there.engine}"
    sources = [CostSource("verifying", f"{target.model.name} on {where}", timer.source, timer.relative_error, timer.guess)]
    if draft is not None and passes is not None:
        of = f"{draft.model.name} on {draft.devices} x {draft.accelerator.name} {draft.weight_precision}"
        sources.append(CostSource("drafting", of, passes.source, passes.relative_error, passes.guess))
    return SpeculationProfile(
        model=target.model.name,
        drafter="prompt-lookup" if draft is None else "draft",
        draft_model=None if draft is None else draft.model.name,
        acceptances=tuple(acceptances),
        costs=tuple(costs),
        change_s=0.0,
        context_tokens=context_tokens,
        sources=tuple(sources),
        left_out=tuple(batch for batch in batches if batch not in fitting),
    )


def deployments(model: str, draft_model: str | None, there: There) -> tuple[Deployment, Deployment | None]:
    """Both models on the hardware, on as few devices as hold them and a request if nobody says how many."""
    facts, device = model_facts(model), accelerator(there.hardware)
    guesses = None if draft_model is None else model_facts(draft_model)
    precision = precision_name(there.precision) if there.precision else facts.native_precision
    choices = PARALLEL if there.tensor_parallel is None else (there.tensor_parallel,)
    for parallel in choices:
        try:
            target = Deployment(facts, device, parallel, there.engine, precision, there.kv_precision)
        except ValueError as error:
            raise BadInput(str(error)) from error
        draft = _draft_on(target, guesses)
        if _room(target, draft) > CONTEXT_TOKENS:
            return target, draft
    names = facts.name if guesses is None else f"{facts.name} with {guesses.name}"
    raise HardwareError(
        f"--hardware {there.hardware}: {names} does not fit on {choices[-1]} of them in {precision}: raise --tensor-parallel,"
        " lower --precision, or choose one with more memory"
    )


def _room(target: Deployment, draft: Deployment | None, context_tokens: int | None = None) -> int:
    """Tokens of cache for requests, typically of ``context_tokens``."""
    if draft is None:
        return kv_capacity_tokens(target, context_tokens=context_tokens)
    return paired_kv_tokens(target, draft, context_tokens=context_tokens)


def _draft_on(target: Deployment, draft: ModelFacts | None) -> Deployment | None:
    return None if draft is None else draft_deployment(target, draft)
