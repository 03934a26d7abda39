"""From a serving configuration to its policy object."""

from __future__ import annotations

from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.policy.continuous import ContinuousPolicy
from setpoint.policy.decisions import Policy
from setpoint.policy.immediate import ImmediatePolicy
from setpoint.policy.setpoint import SetpointPolicy
from setpoint.policy.static import StaticPolicy
from setpoint.policy.step_time import StepTimeModel


def build_policy(config: ServingConfig, model: StepTimeModel | None = None) -> Policy:
    """A fresh policy for ``config``; ``model`` may carry what earlier runs taught."""
    model = model or StepTimeModel()
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
