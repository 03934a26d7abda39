"""``--tokenizer``: what counts the tokens of prompts where the server itself cannot be asked, or should not be."""

from __future__ import annotations

from setpoint.loop.console import say
from setpoint.measure.target import Target
from setpoint.workload.prompts import Encode, EstimatedPrompts, PromptMaker

AUTO, ESTIMATE = "auto", "estimate"


def prompt_maker(target: Target, choice: str | None, *, token_ids_accepted: bool, chat: bool) -> PromptMaker:
    """The prompt maker for ``target``: by the server's tokenizer (``auto``), an ``estimate``, or that of a model.

    Raises ``EngineFailed`` for a model that is not there.
    """
    from setpoint.loop.prompts import prompts_for

    if choice == ESTIMATE:
        return EstimatedPrompts()
    encode = None if choice is None or choice == AUTO else _of_model(choice)
    return prompts_for(target, token_ids_accepted=token_ids_accepted, chat=chat, tokenizer=encode)


def _of_model(source: str) -> Encode:
    from setpoint.engine.models import resolve_model
    from setpoint.engine.tokenizer import ModelTokenizer

    tokenizer = ModelTokenizer(resolve_model(source, say=say).folder)
    return lambda text: tokenizer.encode(text, add_special_tokens=False)
