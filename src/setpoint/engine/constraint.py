"""What an answer must look like, as data, and what the engine needs of a compiled grammar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.int32]


class GrammarKind(StrEnum):
    """How a grammar is written down."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CHOICE = "choice"
    GRAMMAR = "grammar"
    TOOL_CALLS = "tool_calls"


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """A grammar as text: a JSON schema, a regular expression, a JSON list of strings, Lark or GBNF rules, or a JSON object
    that says which tools may or must be called (``tool_grammar.py``).

    ``field``: the request's field it came from, which errors name; equal texts are one grammar whatever the field.
    """

    kind: GrammarKind
    text: str
    field: str


class Matching(Protocol):
    """One answer on its way through a grammar. ``consumed``: how many of its tokens were taken in."""

    consumed: int

    def advance(self, tokens: Sequence[int]) -> None:
        """Take in the tokens that the answer gained."""
        ...

    def allowed(self, bits: Bits) -> None:
        """Write the tokens that may come next: bit ``i % 32`` of ``bits[i // 32]`` is token ``i``; at least one is set."""
        ...

    @property
    def error(self) -> str:
        """Why the grammar cannot be followed any further; empty while it can."""
        ...


class Grammar(Protocol):
    """A compiled grammar. It may be shared by any number of requests."""

    def begin(self) -> Matching:
        """The beginning of an answer."""
        ...


class SupportsGrammars(Protocol):
    """What compiles grammars over a vocabulary."""

    def compile_grammar(self, spec: GrammarSpec) -> Grammar:
        """Blocking, up to seconds. Raises ``InvalidRequest`` that names ``spec.field``."""
        ...


def mask_words(vocabulary: int) -> int:
    """How many 32-bit words hold one bit a token."""
    return (vocabulary + 31) // 32


def is_allowed(bits: npt.NDArray[Any], token: int) -> bool:
    """Whether ``token``'s bit is set."""
    return bool(int(bits[token >> 5]) >> (token & 31) & 1)
