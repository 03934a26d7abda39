"""Workloads: how many tokens, when, and with which text. Everything is drawn before a run, from one seed."""

from setpoint.workload.arrivals import arrival_offsets_s
from setpoint.workload.lengths import draw_tokens
from setpoint.workload.plan import LoadPlan, PhaseSpan, PlannedRequest, plan_load
from setpoint.workload.prompts import (
    EstimatedPrompts,
    Prompt,
    PromptError,
    PromptMaker,
    TextPrompts,
    TokenIdPrompts,
)

__all__ = [
    "EstimatedPrompts",
    "LoadPlan",
    "PhaseSpan",
    "PlannedRequest",
    "Prompt",
    "PromptError",
    "PromptMaker",
    "TextPrompts",
    "TokenIdPrompts",
    "arrival_offsets_s",
    "draw_tokens",
    "plan_load",
]
