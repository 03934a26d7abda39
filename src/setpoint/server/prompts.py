"""From a request's text to token ids, without holding up the event loop.

Short prompts are encoded on the spot, in about a millisecond. Long ones go to one worker thread, which runs without the
interpreter lock; its queue is bounded, in prompts and in characters.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from setpoint.engine.chat_template import NO_VARIABLES
from setpoint.engine.request import InvalidRequest
from setpoint.engine.service import EngineService
from setpoint.server.errors import invalid, overloaded, shutting_down, too_long
from setpoint.server.messages import Message
from setpoint.server.tools import Tool

INLINE_CHARACTERS: Final = 4096
# A template writes more than the messages: a default system prompt, roles. The encoder of longer texts (LONG_CHARACTERS) may be
# busy, and nobody on the event loop waits for it.
INLINE_CHAT_CHARACTERS: Final = 2048
MAX_PENDING: Final = 1024
# About two seconds of encoding on one core.
MAX_PENDING_CHARACTERS: Final = 4_000_000
# What the text around a message costs, in characters: a thousand empty messages are work as well.
MESSAGE_CHARACTERS: Final = 32
# Longer texts are refused before they are encoded: hardly any token covers as many characters, let alone all of them.
MAX_CHARACTERS_PER_TOKEN: Final = 64


class PromptEncoder:
    """Renders and encodes prompts for one engine, and checks that they fit its context."""

    def __init__(self, engine: EngineService, *, max_prompt_tokens: int | None = None) -> None:
        self._engine = engine
        self._max_prompt_tokens = max_prompt_tokens
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="setpoint-encode")
        self._pending = 0
        self._pending_characters = 0
        self._closed = False

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        add_generation_prompt: bool = True,
        extra: Mapping[str, object] = NO_VARIABLES,
    ) -> tuple[int, ...]:
        """Token ids of a conversation in the model's own template, which also sees the variables in ``extra``.

        Raises ``ApiError`` 400 or 503.
        """
        plain = [message.as_template_sees_it() for message in messages]
        shown = [tool.as_template_sees_it() for tool in tools]
        characters = sum(MESSAGE_CHARACTERS + len(message.content or "") for message in messages)
        for call in (call for message in messages for call in message.tool_calls or ()):
            written = len(call.function.name) + len(call.id or "") + len(call.function.arguments)
            characters += 2 * MESSAGE_CHARACTERS + written
        if shown or extra:
            characters += len(json.dumps([shown, dict(extra)]))

        def render_and_encode() -> list[int]:
            tokenizer = self._engine.tokenizer
            text = tokenizer.render_chat(plain, tools=shown, add_generation_prompt=add_generation_prompt, extra=extra)
            return tokenizer.encode(text, add_special_tokens=False)

        return await self._encode(render_and_encode, characters, "messages", inline=INLINE_CHAT_CHARACTERS)

    async def text(self, text: str, *, add_special_tokens: bool = True, param: str = "prompt") -> tuple[int, ...]:
        """Token ids of a text. Raises ``ApiError`` 400 or 503."""
        tokenizer = self._engine.tokenizer
        return await self._encode(lambda: tokenizer.encode(text, add_special_tokens=add_special_tokens), len(text), param)

    def ids(self, token_ids: tuple[int, ...]) -> tuple[int, ...]:
        """Token ids as the client gave them. Raises ``ApiError`` 400 for an id outside the vocabulary."""
        size = self._engine.tokenizer.vocabulary_size
        wrong = next((token for token in token_ids if not 0 <= token < size), None)
        if wrong is not None:
            raise invalid(f"prompt: token id {str(wrong)[:32]} is outside the vocabulary (0 to {size - 1}).", "prompt")
        return token_ids

    def answer_tokens(self, prompt_ids: Sequence[int], wanted: int | None, param: str, *, cap: str = "max_tokens") -> int:
        """The cap of the answer: what was ``wanted`` in the field ``cap``, else what the context leaves.

        Raises ``ApiError`` 400.
        """
        limit = self._engine.max_model_len
        if not prompt_ids:
            raise invalid(f"{param}: is empty, at least one token is needed.", param)
        most = self._max_prompt_tokens
        if most is not None and len(prompt_ids) > most:
            message = f"The prompt has {len(prompt_ids)} tokens, and this server takes at most {most}."
            raise invalid(message, param, code="context_length_exceeded")
        room = limit - len(prompt_ids)
        if room < 1 or (wanted is not None and wanted > room):
            raise too_long(f"{len(prompt_ids)} tokens", wanted, limit, param if room < 1 else cap, cap=cap)
        return room if wanted is None else wanted

    def close(self) -> None:
        """Take no more prompts; the worker thread ends once it is done with what it has."""
        self._closed = True
        self._worker.shutdown(wait=False)

    async def _encode(
        self, encode: Callable[[], list[int]], characters: int, param: str, *, inline: int = INLINE_CHARACTERS
    ) -> tuple[int, ...]:
        limit = self._engine.max_model_len
        if characters > limit * MAX_CHARACTERS_PER_TOKEN:
            raise too_long(f"{characters} characters", None, limit, param)
        if self._closed:
            raise shutting_down()
        try:
            if characters <= inline:
                return tuple(encode())
            if self._pending and not self._has_room(characters):
                raise overloaded("too many prompts are waiting to be encoded", None)
            self._pending += 1
            self._pending_characters += characters
            try:
                return tuple(await asyncio.get_running_loop().run_in_executor(self._worker, encode))
            finally:
                self._pending -= 1
                self._pending_characters -= characters
        except InvalidRequest as error:
            raise invalid(str(error), error.field_name or param) from None

    def _has_room(self, characters: int) -> bool:
        return self._pending < MAX_PENDING and self._pending_characters + characters <= MAX_PENDING_CHARACTERS
