"""From a serving configuration to its policy object."""

from __future__ import annotations

from setpoint.policy.configuration import BatchingMode, ServingConfig, SpeculationMode
from setpoint.policy.continuous import ContinuousPolicy
from setpoint.policy.decisions import Policy
from setpoint.policy.immediate import ImmediatePolicy
from setpoint.policy.setpoint import SetpointPolicy
from setpoint.policy.speculating import FixedDrafts, SpeculatingPolicy
from setpoint.policy.speculation import SpeculationController
from setpoint.policy.static import StaticPolicy
from setpoint.policy.step_time import StepTimeModel


def build_policy(config: ServingConfig, model: StepTimeModel | None = None) -> Policy:
    """A fresh policy for ``config``; ``model`` may carry what earlier runs taught."""
    model = model or StepTimeModel()
    policy = _batching(config, model)
    if config.speculation is SpeculationMode.OFF:
        return policy
    if config.draft_tokens is not None:
        return SpeculatingPolicy(policy, FixedDrafts(config.draft_tokens), token_budget=config.token_budget)
    controller = SpeculationController(model, most_tokens=config.max_draft_tokens)
    return SpeculatingPolicy(policy, controller, token_budget=config.token_budget)


def _batching(config: ServingConfig, model: StepTimeModel) -> Policy:
    if config.mode is BatchingMode.IMMEDIATE:
        return ImmediatePolicy(token_budget=config.token_budget, max_waiting=config.max_waiting, model=model)
    if config.mode is BatchingMode.STATIC:
        return StaticPolicy(
            batch_size=config.max_running,
            batch_wait_s=config.batch_wait_s,
            token_budget=config.token_budget,
            max_waiting=config.max_waiting,
            model=model,
        )
    if config.mode is BatchingMode.CONTINUOUS:
        return ContinuousPolicy(
            max_running=config.max_running,
            token_budget=config.token_budget,
            max_waiting=config.max_waiting,
            model=model,
        )
    return SetpointPolicy(
        max_running=config.max_running,
        token_budget=config.token_budget,
        prefill_floor_tokens=config.prefill_floor_tokens,
        max_waiting=config.max_waiting,
        model=model,
    )
