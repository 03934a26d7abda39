"""Prompts as text with a counted number of tokens.

Where every word of our sentences is one token of the tokenizer, which is found out once, a prompt of n tokens is a matter
of counting words. With any other tokenizer each prompt is fitted by asking for counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from setpoint.workload.corpus import STARTS, the_corpus
from setpoint.workload.fitting import common_length, fit_text
from setpoint.workload.prompt import (
    BLOCK_STREAM,
    PREFIX_STREAM,
    REST_STREAM,
    Encode,
    Prompt,
    PromptBlock,
    PromptError,
    block_topic,
    blocks_within,
    joined,
    own_topic,
    pieces,
    prefix_topic,
)
from setpoint.workload.words import NOUNS

KEPT_PREFIXES = 4096
KEPT_BLOCKS = 4096

_ALTERNATIVES = (" Apple", " Yellow")
_PROBE = _ALTERNATIVES[0].strip()
_LAST_WORD = " time"
_PIECES_A_CALL = 2048
_CORRECTIONS = 3


class _Head(NamedTuple):
    """What a prompt begins with, and how many token ids are there before its own first word."""

    text: str
    taken: int


class TextPrompts:
    """Prompt text, fitted to the number of tokens by asking the tokenizer.

    encode: text to the token ids that the server will compute for it. What the server adds (a chat template, a
    beginning-of-sequence token) belongs into it: then it counts as part of the prompt, and as part of the shared prefix
    where it comes first.
    """

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._whole_words: bool | None = None
        self._prefix = lru_cache(KEPT_PREFIXES)(self._make_prefix)
        self._block = lru_cache(KEPT_BLOCKS)(self._make_block)
        self._first_word = lru_cache(len(NOUNS))(lambda word: self._count(word))

    def __call__(
        self, *, tokens: int, shared_prefix_tokens: int, seed: int, serial: int, blocks: Sequence[PromptBlock] = ()
    ) -> Prompt:
        """See ``PromptMaker``. ``tokens`` of the answer is the true count.

        It may differ from the count asked for where the tokenizer has no text of that very length, and with blocks by
        what the server adds. Raises ``PromptError`` if what the server adds and the shared prefix leave no room for a word.
        """
        if self._whole_words is None:
            self._whole_words = self._has_whole_words()
        if blocks:
            head = self._head_of_blocks(blocks, tokens, seed)
            if head.taken >= tokens:
                return Prompt(joined(head.text), head.taken, exact=True)
        else:
            head = self._prefix(shared_prefix_tokens, seed)
        topic = own_topic(seed, serial)
        quick = self._quick(head, topic, tokens, seed, serial) if self._whole_words else None
        return quick or self._fitted(head, topic, tokens, seed, serial)

    def of_text(self, text: str) -> Prompt:
        """The prompt that consists of ``text``."""
        return Prompt(text, self._count(text), exact=True)

    def _quick(self, head: _Head, topic: tuple[str, ...], tokens: int, seed: int, serial: int) -> Prompt | None:
        """The prompt by counting words; ``None`` if it is too short for that."""
        taken = head.taken if head.text else self._first_word(topic[0].strip()) - 1
        size = tokens - taken - len(topic)
        if size < 1:
            return None
        corpus = the_corpus()
        text = corpus.cut(corpus.start(seed, REST_STREAM, serial), size)
        if text.endswith("."):  # A template may join it with what comes after; a word stays as it is.
            text = text.removesuffix(".") + _LAST_WORD
        return Prompt(joined(head.text, *topic, text), tokens, exact=True)

    def _fitted(self, head: _Head, topic: tuple[str, ...], tokens: int, seed: int, serial: int) -> Prompt:
        text, count = fit_text(
            pieces(topic, seed, REST_STREAM, serial),
            tokens,
            lambda rest: self._count(joined(head.text, rest)),
            guess=tokens - head.taken,
        )
        if not text or count > tokens:
            raise PromptError(
                f"a prompt of {tokens} tokens has no room for a word of its own: chat template and shared prefix take "
                f"{head.taken}; ask for longer prompts"
            )
        return Prompt(joined(head.text, text), count, exact=True)

    def _make_prefix(self, tokens: int, seed: int) -> _Head:
        """Text that makes the first ``tokens`` ids of every prompt the same, empty where the chat template alone does."""
        text = self._prefix_text(tokens, seed) if tokens else ""
        return _Head(text, self._count(joined(text, _ALTERNATIVES[0])) - 1)

    def _prefix_text(self, tokens: int, seed: int) -> str:
        topic = prefix_topic(seed)
        corpus = the_corpus()
        size = tokens - len(topic)
        for _ in range(_CORRECTIONS if self._whole_words else 0):
            if size < 1:
                break
            text = "".join(topic) + corpus.cut(corpus.start(seed, PREFIX_STREAM), size)
            found = self._shared_tokens(text)
            if found == tokens:
                return text
            size += tokens - found
        return fit_text(pieces(topic, seed, PREFIX_STREAM), tokens, self._shared_tokens, guess=tokens)[0]

    def _head_of_blocks(self, blocks: Sequence[PromptBlock], tokens: int, seed: int) -> _Head:
        within = list(blocks_within(blocks, tokens))
        text = "".join(self._block(seed, block.number, block.tokens) for block in within)
        if not self._whole_words:
            return _Head(text, self._count(joined(text)))
        first = block_topic(seed, within[0].number)[0]
        return _Head(text, sum(block.tokens for block in within) + self._first_word(first.strip()) - 1)

    def _make_block(self, seed: int, number: int, tokens: int) -> str:
        """Text of ``tokens`` tokens behind other text."""
        topic = block_topic(seed, number)
        if self._whole_words:
            corpus = the_corpus()
            rest = corpus.cut(corpus.start(seed, BLOCK_STREAM, number), max(tokens - len(topic), 0))
            return "".join(topic[:tokens]) + rest
        base = self._count(_PROBE)
        source = pieces(topic, seed, BLOCK_STREAM, number)
        return fit_text(source, tokens, lambda text: self._count(_PROBE + text) - base, guess=tokens)[0]

    def _has_whole_words(self) -> bool:
        """Whether every piece of the text, and every noun a topic may have, is one token behind other text."""
        base = self._count(_PROBE)
        topics = "".join(f" {noun}:" for noun in NOUNS)
        if self._count(_PROBE + topics) != base + 2 * len(NOUNS):
            return False
        corpus = the_corpus()
        for start in range(0, STARTS, _PIECES_A_CALL):
            text = corpus.cut(start, _PIECES_A_CALL)
            found = self._count(_PROBE + text.removesuffix(".") + _LAST_WORD)
            if found != base + _PIECES_A_CALL + (not text.endswith(".")):
                return False
        return True

    def _shared_tokens(self, prefix: str) -> int:
        """How many leading ids two prompts share that begin with ``prefix`` and then differ."""
        one, other = (self._encode(joined(prefix, alternative)) for alternative in _ALTERNATIVES)
        return common_length(one, other)

    def _count(self, text: str) -> int:
        return len(self._encode(text))
