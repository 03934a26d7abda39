"""Prompts as token ids: exact whatever the tokenizer does, for servers that take ids."""

from __future__ import annotations

from collections.abc import Sequence

from setpoint.workload.corpus import mixed, the_corpus
from setpoint.workload.prompt import (
    BLOCK_STREAM,
    PREFIX_STREAM,
    REST_STREAM,
    Encode,
    Prompt,
    PromptBlock,
    PromptError,
    blocks_within,
)

_IDS_START = 1 << 14
_PIECES_A_CALL = 4096
_MAX_CALLS_IN_VAIN = 8
_TOPIC_IDS = 4


class TokenIdPrompts:
    """Prompts as token ids, for servers that take ids: the ids of sentences, cut to the exact number.

    encode: text to token ids, without special tokens. It is asked for a long text once, not for every prompt.
    """

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._ids: list[int] = []
        self._pieces = 0
        self._alphabet: list[int] = []

    def __call__(
        self, *, tokens: int, shared_prefix_tokens: int, seed: int, serial: int, blocks: Sequence[PromptBlock] = ()
    ) -> Prompt:
        """See ``PromptMaker``. The count is always the one asked for. Raises ``PromptError`` for no room of its own."""
        if tokens <= shared_prefix_tokens:
            raise PromptError(f"a prompt of {tokens} tokens cannot begin with a shared prefix of {shared_prefix_tokens}")
        ids: list[int] = []
        if shared_prefix_tokens:
            ids += self._cut(mixed(seed, PREFIX_STREAM), shared_prefix_tokens, seed, PREFIX_STREAM)
        for block in blocks_within(blocks, tokens):
            ids += self._cut(block.number + mixed(seed), block.tokens, seed, BLOCK_STREAM, block.number)
        if len(ids) < tokens:
            ids += self._cut(serial + seed, tokens - len(ids), seed, REST_STREAM, serial)
        return Prompt(tuple(ids), tokens, exact=True)

    def of_text(self, text: str) -> Prompt:
        """The prompt that consists of ``text``."""
        ids = tuple(self._encode(text))
        return Prompt(ids, len(ids), exact=True)

    def _cut(self, topic: int, tokens: int, *key: int) -> list[int]:
        """``tokens`` ids: a few that count ``topic``, then those of the text that ``key`` stands for."""
        start = mixed(*key) % _IDS_START
        self._grow(start + tokens)
        ids = []
        for _ in range(min(tokens, _TOPIC_IDS)):
            topic, digit = divmod(topic, len(self._alphabet))
            ids.append(self._alphabet[digit])
        return ids + self._ids[start : start + tokens - len(ids)]

    def _grow(self, ids: int) -> None:
        """Encode on until there are ``ids`` ids."""
        in_vain = 0
        while len(self._ids) < ids:
            before = len(self._ids)
            self._ids += self._encode(the_corpus().cut(self._pieces, _PIECES_A_CALL))
            self._pieces += _PIECES_A_CALL
            in_vain = in_vain + 1 if len(self._ids) - before < _PIECES_A_CALL // 64 else 0
            if in_vain == _MAX_CALLS_IN_VAIN:
                raise PromptError(f"{self._pieces} words and marks have {len(self._ids)} tokens: this is no tokenizer of text")
        if not self._alphabet:
            self._alphabet = sorted(set(self._ids))
