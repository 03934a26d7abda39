"""Prompts whose length is an estimate, for servers whose tokenizer cannot be reached."""

from __future__ import annotations

from collections.abc import Sequence

from setpoint.workload.corpus import the_corpus
from setpoint.workload.prompt import (
    BLOCK_STREAM,
    PREFIX_STREAM,
    REST_STREAM,
    Prompt,
    PromptBlock,
    block_topic,
    blocks_within,
    joined,
    own_topic,
    prefix_topic,
)


class EstimatedPrompts:
    """Prompt text where no tokenizer is reachable: the number of words is ``tokens / tokens_per_word``.

    The default is what byte-pair vocabularies of 32,000 to 150,000 entries need for these sentences, full stops
    included; the count is marked as not exact.
    """

    def __init__(self, tokens_per_word: float = 1.08) -> None:
        if not 0.1 <= tokens_per_word <= 100:
            raise ValueError(f"tokens_per_word is {tokens_per_word}; allowed: 0.1 to 100")
        self._tokens_per_word = tokens_per_word

    def __call__(
        self, *, tokens: int, shared_prefix_tokens: int, seed: int, serial: int, blocks: Sequence[PromptBlock] = ()
    ) -> Prompt:
        """See ``PromptMaker``."""
        text = ""
        left = tokens - shared_prefix_tokens
        if shared_prefix_tokens:
            text = self._words(prefix_topic(seed), shared_prefix_tokens, seed, PREFIX_STREAM)
        for block in blocks_within(blocks, tokens):
            text += self._words(block_topic(seed, block.number), block.tokens, seed, BLOCK_STREAM, block.number)
            left -= block.tokens
        if left > 0 or not text:
            text += self._words(own_topic(seed, serial), max(left, 1), seed, REST_STREAM, serial)
        return Prompt(joined(text), tokens, exact=False)

    def _words(self, topic: tuple[str, ...], tokens: int, *key: int) -> str:
        words = max(round(tokens / self._tokens_per_word), 1)
        nouns = len(topic) - 1
        if words <= nouns:
            return "".join(topic[:words])
        corpus = the_corpus()
        return "".join(topic) + corpus.cut_words(corpus.start(*key), words - nouns)
