"""What a prompt is, what makes one, and the pieces of text that it consists of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, Protocol

from setpoint.workload.corpus import mixed, the_corpus
from setpoint.workload.words import topic_pieces

Encode = Callable[[str], Sequence[int]]

PREFIX_STREAM, REST_STREAM, BLOCK_STREAM = range(3)


class PromptError(ValueError):
    """A prompt of this length cannot be made with this tokenizer."""


class PromptBlock(NamedTuple):
    """A part of a prompt: equal numbers stand for equal tokens, the first ``tokens`` of them."""

    number: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent: text or token ids.

    tokens: how many tokens it has. exact: whether that was counted with the tokenizer (otherwise it is an estimate).
    """

    content: str | tuple[int, ...]
    tokens: int
    exact: bool


class PromptMaker(Protocol):
    """Makes the prompt of one request. The same arguments give the same prompt, in any order of calls."""

    def __call__(
        self, *, tokens: int, shared_prefix_tokens: int, seed: int, serial: int, blocks: Sequence[PromptBlock] = ()
    ) -> Prompt:
        """A prompt of ``tokens`` tokens whose first ``shared_prefix_tokens`` are the same for every ``serial``.

        With ``blocks`` (then without a shared prefix) it begins with them, as far as they fit, and what they leave is its
        own: two prompts have in common what their lists of blocks have in common from the first on.
        """
        ...


def blocks_within(blocks: Sequence[PromptBlock], tokens: int) -> Iterator[PromptBlock]:
    """The blocks that fit into ``tokens``, the last one cut to what is left."""
    for block in blocks:
        if tokens <= 0:
            return
        yield PromptBlock(block.number, min(block.tokens, tokens))
        tokens -= block.tokens


def prefix_topic(seed: int) -> tuple[str, ...]:
    """The words that the shared prefix of ``seed`` begins with."""
    return topic_pieces(mixed(seed, PREFIX_STREAM), nouns=3)


def block_topic(seed: int, number: int) -> tuple[str, ...]:
    """The words that the block called ``number`` begins with: different for every number."""
    return topic_pieces(number + mixed(seed), nouns=4)


def own_topic(seed: int, serial: int) -> tuple[str, ...]:
    """The words that begin what belongs to one request alone: they count the requests."""
    return topic_pieces(serial + seed)


def joined(*parts: str) -> str:
    """The prompt, without the space that the first word would bring: some chat templates strip it, some do not."""
    return "".join(parts).removeprefix(" ")


def pieces(topic: tuple[str, ...], *key: int) -> Iterator[str]:
    """The topic and then sentences without an end; where they begin follows from ``key``."""
    corpus = the_corpus()
    return chain(topic, corpus.pieces_from(corpus.start(*key)))
