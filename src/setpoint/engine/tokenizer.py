"""Text to token ids and back, and conversations to prompts, by what the model's own files say."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from setpoint.engine.chat_template import NO_VARIABLES, ChatTemplate, ToolStyle
from setpoint.engine.constraint import Grammar, GrammarSpec
from setpoint.engine.grammars import GrammarCompiler
from setpoint.engine.long_texts import LONG_CHARACTERS, LongTexts, long_texts
from setpoint.engine.openvino.graph import first_line
from setpoint.engine.openvino.runtime import openvino_genai
from setpoint.engine.request import EngineFailed, InvalidRequest

GENERATION_CONFIG = "generation_config.json"
BYTE_TOKEN = re.compile(rb"<0x([0-9A-Fa-f]{2})>")
SPACE_MARK = "\N{LOWER ONE EIGHTH BLOCK}".encode()
SAMPLE = "The quick brown fox, naïve café — 12,345 = x_y; \n\tdef f(a): return 'ok' 日本語 😀"


class ModelTokenizer:
    """The tokenizer in a model folder. ``token_bytes[i]``: bytes of token i in running text; specials give none.

    chat_template: a template to use in place of the model's own. off_lock: encode long texts without the interpreter lock, as
    a server needs it; elsewhere it is not worth another runtime to start and to end. Raises ``EngineFailed`` for what cannot
    be read.
    """

    def __init__(self, folder: Path, *, chat_template: str | None = None, off_lock: bool = False) -> None:
        self._folder = folder
        try:
            self._tokenizer = openvino_genai.Tokenizer(str(folder))
            vocabulary: dict[bytes, int] = self._tokenizer.get_vocab()
        except RuntimeError as error:
            raise EngineFailed(f"{folder}: no tokenizer that can be read: {first_line(error)}") from error
        self._long: LongTexts | None = None
        if off_lock:
            self._long = long_texts(folder, lambda text, special: self.encode(text, add_special_tokens=special))
        self.vocabulary_size = max(vocabulary.values()) + 1
        self.special_ids = self._find_specials(_token_ids(folder, "spelled_token_ids"))
        self.token_bytes = self._bytes_table(vocabulary)
        self._check_bytes()
        self.eos_ids = frozenset(each for each in (self._tokenizer.get_eos_token_id(), *stop_ids(folder)) if each >= 0)
        source = self._tokenizer.chat_template if chat_template is None else chat_template
        names = {"bos_token": self._tokenizer.get_bos_token(), "eos_token": self._tokenizer.get_eos_token()}
        self._template = ChatTemplate(source, names) if source else None
        self._compiler: GrammarCompiler | None = None
        self._compiler_lock = threading.Lock()

    @property
    def tool_style(self) -> ToolStyle:
        """How the model writes down a call of a tool; ``NONE`` if its chat template knows no tools."""
        return self._template.tool_style if self._template is not None else ToolStyle.NONE

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of ``text``; special tokens written out in it are recognised."""
        if not text:
            return []
        if len(text) > LONG_CHARACTERS and self._long is not None:
            return self._long.encode(text, add_special_tokens=add_special_tokens)
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).input_ids.data[0].tolist()
        return ids

    def decode(self, token_ids: list[int]) -> str:
        """Text of ``token_ids`` without special tokens; incomplete characters become U+FFFD."""
        return b"".join(self.token_bytes[i] for i in token_ids).decode("utf-8", "replace")

    def cover(self, vocabulary: int) -> None:
        """Bring ``token_bytes`` to the width of a model's output: padding spells nothing, and tokens that were added to the
        tokenizer alone are unknown to the model."""
        self.token_bytes.extend([b""] * (vocabulary - len(self.token_bytes)))
        del self.token_bytes[vocabulary:]
        self.vocabulary_size = min(self.vocabulary_size, vocabulary)
        self.special_ids = frozenset(each for each in self.special_ids if each < vocabulary)
        self.eos_ids = frozenset(each for each in self.eos_ids if each < vocabulary)

    def piece(self, token: int) -> bytes:
        """What a token is shown as: its bytes in running text, or a special token's name."""
        return self._special_names.get(token, b"") or (self.token_bytes[token] if token < len(self.token_bytes) else b"")

    def compile_grammar(self, spec: GrammarSpec) -> Grammar:
        """Compile, or find again. Blocking, up to seconds. Raises ``InvalidRequest`` that names ``spec.field``.

        Compiling reads the tokenizer a second time: the first is busy with prompts, and masks are made on another thread.
        """
        if not self.eos_ids:
            raise InvalidRequest(
                "the model names no token that ends an answer, so no answer can be held to a grammar", spec.field
            )
        with self._compiler_lock:
            if self._compiler is None:
                own = openvino_genai.Tokenizer(str(self._folder))

                def encode(text: str) -> list[int]:
                    return own.encode(text, add_special_tokens=False).input_ids.data[0].tolist() if text else []

                self._compiler = GrammarCompiler(self.token_bytes, self.special_ids, self.eos_ids, encode)
        return self._compiler.compile(spec)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] = (),
        add_generation_prompt: bool = True,
        extra: Mapping[str, object] = NO_VARIABLES,
    ) -> str:
        """The conversation as the model's chat template writes it. Raises ``InvalidRequest`` where the template refuses."""
        if self._template is None:
            raise InvalidRequest("this model has no chat template: use /v1/completions", "messages")
        return self._template.render(messages, tools=tools, add_generation_prompt=add_generation_prompt, extra=extra)

    def _find_specials(self, spelled: frozenset[int]) -> frozenset[int]:
        """Tokens that are no text; ``spelled``: those that decoding leaves out though they are (``openvino/gguf.py``)."""
        single = [[token] for token in range(self.vocabulary_size)]
        shown: list[str] = self._tokenizer.decode(single, skip_special_tokens=False)
        kept: list[str] = self._tokenizer.decode(single, skip_special_tokens=True)
        left_out = {i: a.encode() for i, (a, b) in enumerate(zip(shown, kept, strict=True)) if a and not b}
        self._special_names = {i: name for i, name in left_out.items() if i not in spelled}
        return frozenset(self._special_names)

    def _bytes_table(self, vocabulary: dict[bytes, int]) -> list[bytes]:
        marks_spaces = sum(token.startswith(SPACE_MARK) for token in vocabulary) > len(vocabulary) // 20
        table = [b""] * self.vocabulary_size
        for token, index in vocabulary.items():
            if index in self.special_ids:
                continue
            table[index] = token
            if marks_spaces:
                byte = BYTE_TOKEN.fullmatch(token)
                table[index] = bytes([int(byte[1], 16)]) if byte else token.replace(SPACE_MARK, b" ")
        return table

    def _check_bytes(self) -> None:
        ids = self.encode(SAMPLE, add_special_tokens=False)
        ours, theirs = self.decode(ids).strip(), str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()
        if ours != theirs:
            raise EngineFailed(f"the vocabulary does not spell what the tokenizer decodes: {ours!r}, not {theirs!r}")


def stop_ids(folder: Path) -> frozenset[int]:
    """``eos_token_id`` of the folder's ``generation_config.json``: many chat models end a turn with more than one token."""
    return _token_ids(folder, "eos_token_id")


def _token_ids(folder: Path, key: str) -> frozenset[int]:
    """A token or a list of them, as the folder's ``generation_config.json`` has it. Raises ``EngineFailed``."""
    file = folder / GENERATION_CONFIG
    if not file.is_file():
        return frozenset()
    try:
        found = json.loads(file.read_text(encoding="utf-8")).get(key)
    except (OSError, ValueError, AttributeError) as error:
        raise EngineFailed(f"{file}: cannot be read: {error}") from error
    return frozenset(token for token in (found if isinstance(found, list) else [found]) if isinstance(token, int))
