"""The right prompt maker for a target: exact counts where a tokenizer can be asked, a declared estimate elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from setpoint.measure.target import Target
from setpoint.measure.tokenize import RemoteTokenizer
from setpoint.workload.prompts import (
    Encode,
    EstimatedPrompts,
    Prompt,
    PromptBlock,
    PromptMaker,
    TextPrompts,
    TokenIdPrompts,
)

KEPT_ANSWERS = 16


class NearlyExact:
    """Prompts counted by a tokenizer that leaves something out (the chat template): their counts are estimates."""

    def __init__(self, make_prompt: TextPrompts) -> None:
        self._make_prompt = make_prompt

    def __call__(
        self, *, tokens: int, shared_prefix_tokens: int, seed: int, serial: int, blocks: Sequence[PromptBlock] = ()
    ) -> Prompt:
        """See ``PromptMaker``."""
        prompt = self._make_prompt(
            tokens=tokens, shared_prefix_tokens=shared_prefix_tokens, seed=seed, serial=serial, blocks=blocks
        )
        return replace(prompt, exact=False)

    def of_text(self, text: str) -> Prompt:
        """The prompt that consists of ``text``."""
        return replace(self._make_prompt.of_text(text), exact=False)


def prompts_for(
    target: Target, *, token_ids_accepted: bool, chat: bool = False, tokenizer: Encode | None = None
) -> PromptMaker:
    """The prompt maker for ``target``.

    token_ids_accepted: the server's completions take prompts as token ids (``Discovery.takes_token_ids``). chat: the
    prompts go to the chat endpoint, which takes text and adds its template. tokenizer: text to token ids, asked instead
    of the server's; what the server adds to a text is then not counted.
    """
    if tokenizer is not None:
        encode = _remembered(tokenizer)
        return TokenIdPrompts(encode) if token_ids_accepted and not chat else NearlyExact(TextPrompts(encode))
    remote = RemoteTokenizer(target)
    if not remote.works():
        return EstimatedPrompts()
    if not chat:
        return (
            TokenIdPrompts(_remembered(remote.encode)) if token_ids_accepted else TextPrompts(_remembered(remote.encode_prompt))
        )
    if remote.works_for_chat():
        return TextPrompts(_remembered(remote.encode_chat))
    return NearlyExact(TextPrompts(_remembered(remote.encode)))


def _remembered(encode: Encode) -> Encode:
    """The shared prefix is asked for with every prompt; a handful of answers is worth keeping."""
    return lru_cache(maxsize=KEPT_ANSWERS)(encode)
