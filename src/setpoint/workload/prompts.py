"""Prompts with a known number of tokens, a shared beginning, and nothing else in common.

The shared prefix depends on the seed alone. The rest begins with two words that count the requests, so that the prefix
cache of a server finds the shared prefix and no more. Requests that share more (conversations of a trace) are made of
blocks: equal numbers are equal text. All of it follows from the arguments: a plan is the same whoever executes it, in
whatever order.
"""

from setpoint.workload.estimated_prompts import EstimatedPrompts
from setpoint.workload.id_prompts import TokenIdPrompts
from setpoint.workload.prompt import Encode, Prompt, PromptBlock, PromptError, PromptMaker
from setpoint.workload.text_prompts import TextPrompts

__all__ = [
    "Encode",
    "EstimatedPrompts",
    "Prompt",
    "PromptBlock",
    "PromptError",
    "PromptMaker",
    "TextPrompts",
    "TokenIdPrompts",
]
