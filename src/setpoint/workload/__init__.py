"""Workloads: how many tokens, when, and with which text. Everything is drawn before a run, from one seed."""

from setpoint.workload.arrivals import arrival_offsets_s, offsets_of
from setpoint.workload.closed import plan_closed
from setpoint.workload.lengths import draw_seconds, draw_tokens, mean_tokens
from setpoint.workload.plan import plan_load
from setpoint.workload.planned import LoadPlan, PhaseSpan, PlannedRequest, largest_context_tokens
from setpoint.workload.prompts import (
    EstimatedPrompts,
    Prompt,
    PromptBlock,
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
    "PromptBlock",
    "PromptError",
    "PromptMaker",
    "TextPrompts",
    "TokenIdPrompts",
    "arrival_offsets_s",
    "draw_seconds",
    "draw_tokens",
    "largest_context_tokens",
    "mean_tokens",
    "offsets_of",
    "plan_closed",
    "plan_load",
]
