"""Prompts with a known number of tokens, a shared prefix, and nothing else in common.

The shared prefix depends on the seed alone. The rest begins with two words that count the requests and goes on with
sentences of its own, so that the prefix cache of a server finds the shared prefix and no more. All of it follows from
``(seed, serial)``: a plan is the same whoever executes it, in whatever order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Protocol

import numpy as np

from setpoint.workload.fitting import common_length, fit_text
from setpoint.workload.words import sentence_pieces, topic_pieces

Encode = Callable[[str], Sequence[int]]

_PREFIX_STREAM, _REST_STREAM = 0, 1
_ALTERNATIVES = (" Apple", " Yellow")


class PromptError(ValueError):
    """A prompt of this length cannot be made with this tokenizer."""


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

    def __call__(self, *, tokens: int, shared_prefix_tokens: int, seed: int, serial: int) -> Prompt:
        """A prompt of ``tokens`` tokens whose first ``shared_prefix_tokens`` are the same for every ``serial``."""
        ...


class TextPrompts:
    """Prompt text, fitted to the number of tokens by asking the tokenizer.

    encode: text to the token ids that the server will compute for it. What the server adds (a chat template, a
    beginning-of-sequence token) belongs into it: then it counts as part of the prompt, and as part of the shared prefix
    where it comes first.
    """

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._prefixes: dict[tuple[int, int], tuple[str, int]] = {}

    def __call__(self, *, tokens: int, shared_prefix_tokens: int, seed: int, serial: int) -> Prompt:
        """See ``PromptMaker``. ``tokens`` of the answer is the true count.

        It may differ from the count asked for where the tokenizer has no text of that very length. Raises
        ``PromptError`` if what the server adds and the shared prefix leave no room for a word.
        """
        prefix, taken = self._prefix(shared_prefix_tokens, seed)
        text, count = fit_text(
            _rest(seed, serial),
            tokens,
            lambda rest: len(self._encode(_joined(prefix, rest))),
            guess=tokens - taken,
        )
        if not text or count > tokens:
            raise PromptError(
                f"a prompt of {tokens} tokens has no room for a word of its own: chat template and shared prefix take "
                f"{taken}; ask for longer prompts"
            )
        return Prompt(_joined(prefix, text), count, exact=True)

    def _prefix(self, tokens: int, seed: int) -> tuple[str, int]:
        """Text that makes the first ``tokens`` ids of every prompt the same, and how many ids are not a prompt's own.

        The text is empty where the chat template alone makes as many ids the same.
        """
        key = (tokens, seed)
        if key not in self._prefixes:
            pieces = sentence_pieces(_rng(seed, _PREFIX_STREAM))
            text = fit_text(pieces, tokens, self._shared_tokens, guess=tokens)[0] if tokens else ""
            self._prefixes[key] = (text, len(self._encode(_joined(text, _ALTERNATIVES[0]))) - 1)
        return self._prefixes[key]

    def _shared_tokens(self, prefix: str) -> int:
        """How many leading ids two prompts share that begin with ``prefix`` and then differ."""
        one, other = (self._encode(_joined(prefix, alternative)) for alternative in _ALTERNATIVES)
        return common_length(one, other)


class TokenIdPrompts:
    """Prompts as token ids, for servers that take ids: the ids of sentences, cut to the exact number.

    encode: text to token ids, without special tokens.
    """

    def __init__(self, encode: Encode) -> None:
        self._encode = encode

    def __call__(self, *, tokens: int, shared_prefix_tokens: int, seed: int, serial: int) -> Prompt:
        """See ``PromptMaker``. The count is always the one asked for. Raises ``PromptError`` for no room of its own."""
        if tokens <= shared_prefix_tokens:
            raise PromptError(f"a prompt of {tokens} tokens cannot begin with a shared prefix of {shared_prefix_tokens}")
        prefix = self._ids(sentence_pieces(_rng(seed, _PREFIX_STREAM)), shared_prefix_tokens)
        rest = self._ids(_rest(seed, serial), tokens - shared_prefix_tokens)
        return Prompt(prefix + rest, tokens, exact=True)

    def _ids(self, pieces: Iterator[str], tokens: int) -> tuple[int, ...]:
        if tokens <= 0:
            return ()
        text = "".join(islice(pieces, tokens))
        for _ in range(8):
            ids = self._encode(text)
            if len(ids) >= tokens:
                return tuple(ids[:tokens])
            text += "".join(islice(pieces, tokens))
        raise PromptError(f"{len(text)} characters are fewer than {tokens} tokens: this is no tokenizer of text")


class EstimatedPrompts:
    """Prompt text where no tokenizer is reachable: the number of words is ``tokens / tokens_per_word``.

    The default is what byte-pair vocabularies of 32,000 to 150,000 entries need for these sentences, full stops
    included; the count is marked as not exact.
    """

    def __init__(self, tokens_per_word: float = 1.08) -> None:
        if not 0.1 <= tokens_per_word <= 100:
            raise ValueError(f"tokens_per_word is {tokens_per_word}; allowed: 0.1 to 100")
        self._tokens_per_word = tokens_per_word

    def __call__(self, *, tokens: int, shared_prefix_tokens: int, seed: int, serial: int) -> Prompt:
        """See ``PromptMaker``."""
        prefix = self._words(sentence_pieces(_rng(seed, _PREFIX_STREAM)), shared_prefix_tokens)
        rest = self._words(_rest(seed, serial), max(tokens - shared_prefix_tokens, 1))
        return Prompt(_joined(prefix, rest), tokens, exact=False)

    def _words(self, pieces: Iterator[str], tokens: int) -> str:
        words = max(round(tokens / self._tokens_per_word), 1) if tokens > 0 else 0
        text: list[str] = []
        while words > 0:
            text.append(next(pieces))
            words -= text[-1].startswith(" ")
        return "".join(text)


def _joined(prefix: str, rest: str) -> str:
    """The prompt, without the space that the first word would bring: some chat templates strip it, some do not."""
    return (prefix + rest).removeprefix(" ")


def _rest(seed: int, serial: int) -> Iterator[str]:
    return chain(topic_pieces(serial + seed), sentence_pieces(_rng(seed, _REST_STREAM, serial)))


def _rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(key))
