"""Lengths within what the model takes, and prompts within what a tokenizer can do; both count what they changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from setpoint.workload.prompt import Prompt, PromptBlock, PromptError, PromptMaker
from setpoint.workload.traces.sharegpt import estimated_tokens
from setpoint.workload.traces.trace import Turn

LEAST_PROMPT_TOKENS = 8
MOST_LENGTHENED_TOKENS = 1024
CUT_TRIES = 8


@dataclass(slots=True)
class Limits:
    """The most tokens of a prompt, of an answer, and of both together; ``None`` for no limit. Counts what was cut."""

    prompt_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None
    cut_prompts: int = 0
    cut_outputs: int = 0

    def fitted(self, prompt_tokens: int, output_tokens: int) -> tuple[int, int]:
        """Lengths within the limits; together too long, the prompt gives way until the answer has half of the room."""
        prompt = min(prompt_tokens, self.prompt_tokens or prompt_tokens)
        output = min(output_tokens, self.output_tokens or output_tokens)
        if self.total_tokens is not None and prompt + output > self.total_tokens:
            output = min(output, max(self.total_tokens // 2, self.total_tokens - prompt, 1))
            prompt = min(prompt, max(self.total_tokens - output, 1))
        return prompt, output

    def cut(self, prompt_tokens: int, output_tokens: int) -> tuple[int, int]:
        """As ``fitted``, and counted."""
        prompt, output = self.fitted(prompt_tokens, output_tokens)
        self.cut_prompts += prompt < prompt_tokens
        self.cut_outputs += output < output_tokens
        return prompt, output

    def notes(self) -> list[str]:
        """What was cut, one sentence each."""
        notes = []
        if self.cut_prompts:
            notes.append(f"{self.cut_prompts} prompts were cut to the most tokens that the model takes.")
        if self.cut_outputs:
            notes.append(f"{self.cut_outputs} answers were cut to the most tokens that the model takes.")
        return notes


@runtime_checkable
class TextMeasure(Protocol):
    """A prompt maker that can also say how many tokens a text has."""

    def of_text(self, text: str) -> Prompt:
        """The prompt that consists of ``text``."""
        ...


class Measured:
    """A prompt maker that makes a prompt longer where it is too short to be made, and measures real text."""

    def __init__(self, make_prompt: PromptMaker, limits: Limits) -> None:
        self._make_prompt = make_prompt
        self._limits = limits
        self._lengthened = 0
        self._left_out = 0

    def __call__(
        self, *, tokens: int, shared_prefix_tokens: int, seed: int, serial: int, blocks: Sequence[PromptBlock] = ()
    ) -> Prompt:
        """See ``PromptMaker``; a prompt too short for what a chat template adds is made longer."""
        more = {"blocks": blocks} if blocks else {}
        asked = tokens
        while True:
            try:
                prompt = self._make_prompt(
                    tokens=asked, shared_prefix_tokens=shared_prefix_tokens, seed=seed, serial=serial, **more
                )
            except PromptError:
                if asked >= MOST_LENGTHENED_TOKENS:
                    raise
                asked = max(2 * asked, LEAST_PROMPT_TOKENS)
                continue
            self._lengthened += asked > tokens
            return prompt

    def turn(self, turn: Turn, context_tokens: int) -> tuple[Prompt, int] | None:
        """The prompt and the answer's tokens of a turn behind ``context_tokens``; ``None`` if there is no room for it."""
        prompt = self._of_text(turn.prompt)
        output_tokens = self._of_text(turn.answer).tokens
        wanted = context_tokens + prompt.tokens
        if context_tokens and self._limits.fitted(wanted, output_tokens)[0] < wanted:
            self._left_out += 1
            return None
        room, output_tokens = self._limits.cut(wanted, output_tokens)
        if room < wanted:
            prompt = self._cut_text(turn.prompt, prompt, room)
        return prompt, output_tokens

    def notes(self) -> list[str]:
        """What was changed, one sentence each."""
        notes = []
        if self._lengthened:
            notes.append(f"{self._lengthened} prompts were too short for this model's chat template and were made longer.")
        if self._left_out:
            notes.append(f"{self._left_out} sessions end early, where the conversation would be longer than the model takes.")
        return notes

    def _of_text(self, text: str) -> Prompt:
        if isinstance(self._make_prompt, TextMeasure):
            return self._make_prompt.of_text(text)
        return Prompt(text, estimated_tokens(text), exact=False)

    def _cut_text(self, text: str, prompt: Prompt, tokens: int) -> Prompt:
        """The beginning of ``text`` with at most ``tokens`` tokens."""
        for _ in range(CUT_TRIES):
            if prompt.tokens <= tokens or len(text) <= 1:
                break
            text = text[: max(1, int(len(text) * tokens / prompt.tokens) - 1)]
            prompt = self._of_text(text)
        return prompt
