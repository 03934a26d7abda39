"""Grammars over a model's vocabulary, compiled by llguidance.

JSON is written the way ``json.dumps`` writes it (``", "`` and ``": "``, no other whitespace), and what a schema leaves without
a bound is bounded where that can be done (``ending_schema.py``), so that no answer spends its tokens on nothing.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import llguidance

from setpoint.engine.constraint import Bits, Grammar, GrammarKind, GrammarSpec, mask_words
from setpoint.engine.ending_schema import ending
from setpoint.engine.request import InvalidRequest
from setpoint.engine.tool_grammar import tool_grammar

MAX_GRAMMAR_CHARACTERS: Final = 1 << 16
MAX_CACHED: Final = 64
MAX_FORCED_TEXTS: Final = 8192
JSON_STYLE: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
SPECIAL_MARK: Final = b"\xff"


class _Vocabulary:
    """What llguidance asks of a tokenizer. Its masks ask for the tokens of forced text at almost every step: remembered."""

    is_tokenizer_wrapper = True

    def __init__(
        self, token_bytes: Sequence[bytes], special_ids: Iterable[int], eos_id: int, encode: Callable[[str], list[int]]
    ) -> None:
        special = frozenset(special_ids)
        self.eos_token_id = eos_id
        self.bos_token_id = None
        self.special_token_ids = sorted(special)
        self.tokens = [SPECIAL_MARK + b"<%d>" % i if i in special else piece for i, piece in enumerate(token_bytes)]
        self._encode = lru_cache(MAX_FORCED_TEXTS)(encode)

    def __call__(self, text: str | bytes) -> list[int]:
        return self._encode(text if isinstance(text, str) else text.decode("utf-8", "replace"))


class LlMatching:
    """``constraint.Matching`` over one llguidance matcher."""

    __slots__ = ("_matcher", "_words", "consumed")

    def __init__(self, matcher: llguidance.LLMatcher, words: int) -> None:
        self._matcher = matcher
        self._words = words
        self.consumed = 0

    def advance(self, tokens: Sequence[int]) -> None:
        """Take in the tokens that the answer gained; one that is not allowed shows in ``error``."""
        if tokens:
            self._matcher.consume_tokens(list(tokens))
            self.consumed += len(tokens)

    def allowed(self, bits: Bits) -> None:
        """Write the mask of the next token; ``bits`` may be wider than the vocabulary, what is beyond it may not come."""
        own = bits[: self._words]
        bits[self._words :] = 0
        self._matcher.unsafe_compute_mask_ptr(own.ctypes.data, own.nbytes)

    @property
    def error(self) -> str:
        """Why the grammar cannot be followed any further; empty while it can."""
        return self._matcher.get_error().partition("\n")[0] if self._matcher.is_error() else ""


class LlGrammar:
    """``constraint.Grammar``: a matcher at its beginning, copied for every answer; copies share what they learn."""

    __slots__ = ("_beginning", "_lock", "_words")

    def __init__(self, beginning: llguidance.LLMatcher, words: int) -> None:
        self._beginning = beginning
        self._words = words
        self._lock = threading.Lock()

    def begin(self) -> LlMatching:
        """The beginning of an answer."""
        with self._lock:
            return LlMatching(self._beginning.deep_copy(), self._words)


class GrammarCompiler:
    """Compiles grammars for one vocabulary and remembers the ``MAX_CACHED`` used last. May be called from any thread."""

    def __init__(
        self,
        token_bytes: Sequence[bytes],
        special_ids: Iterable[int],
        eos_ids: Iterable[int],
        encode: Callable[[str], list[int]],
    ) -> None:
        ends = sorted(eos_ids)
        vocabulary = _Vocabulary(token_bytes, special_ids, ends[0], encode)
        wrapped: Any = vocabulary
        self._tokenizer = llguidance.LLTokenizer(
            wrapped, n_vocab=len(token_bytes), eos_token=ends, slices=llguidance.LLTokenizer.json_slices()
        )
        self._words = mask_words(len(token_bytes))
        self._cache: OrderedDict[tuple[GrammarKind, str], Grammar] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, spec: GrammarSpec) -> Grammar:
        """The grammar of ``spec``. Raises ``InvalidRequest`` that names ``spec.field`` and what is wrong with it."""
        key = (spec.kind, spec.text)
        with self._lock:
            known = self._cache.get(key)
            if known is not None:
                self._cache.move_to_end(key)
                return known
        grammar = LlGrammar(self._matcher(spec), self._words)
        with self._lock:
            self._cache[key] = grammar
            while len(self._cache) > MAX_CACHED:
                self._cache.popitem(last=False)
        return grammar

    def _matcher(self, spec: GrammarSpec) -> llguidance.LLMatcher:
        if len(spec.text) > MAX_GRAMMAR_CHARACTERS:
            found = f"has {len(spec.text)} characters as JSON" if spec.kind is GrammarKind.JSON_SCHEMA else "is too long"
            raise InvalidRequest(f"{spec.field}: {found}, at most {MAX_GRAMMAR_CHARACTERS} are compiled", spec.field)
        try:
            matcher = self._compiled(_as_lark(spec, bounded=True))
            if matcher.is_error() and spec.kind in (GrammarKind.JSON_SCHEMA, GrammarKind.TOOL_CALLS):
                # A bound of ours may contradict one of the schema's: it goes first.
                matcher = self._compiled(_as_lark(spec, bounded=False))
        except (ValueError, RecursionError) as error:
            raise _refusal(spec, str(error)) from None
        if matcher.is_error():
            raise _refusal(spec, matcher.get_error())
        return matcher

    def _compiled(self, lark: str) -> llguidance.LLMatcher:
        limits = llguidance.LLParserLimits(verbose_errors=False)
        return llguidance.LLMatcher(self._tokenizer, lark, log_level=0, limits=limits)


def _as_lark(spec: GrammarSpec, *, bounded: bool) -> str:
    bound = ending if bounded else _unchanged
    if spec.kind is GrammarKind.JSON_SCHEMA:
        schema = json.dumps(bound(json.loads(spec.text)))
        return llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=JSON_STYLE)  # type: ignore[arg-type]
    if spec.kind is GrammarKind.REGEX:
        return llguidance.LLMatcher.grammar_from_regex(spec.text)
    if spec.kind is GrammarKind.CHOICE:
        return llguidance.grammar_from("choice", spec.text)
    if spec.kind is GrammarKind.TOOL_CALLS:
        return tool_grammar(json.loads(spec.text), bound, JSON_STYLE)
    return llguidance.grammar_from("grammar", spec.text)


def _unchanged(schema: Any) -> Any:
    return schema


def _refusal(spec: GrammarSpec, error: str) -> InvalidRequest:
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    # Parse errors are pictures of several lines; the one that says what is wrong begins so.
    words = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0] if lines else "?")
    return InvalidRequest(f"{spec.field}: cannot be compiled: {words[:300]}", spec.field)
