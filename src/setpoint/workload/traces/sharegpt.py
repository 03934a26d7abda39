"""ShareGPT's JSON: conversations in text, without times. Read one conversation at a time, however large the file is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from setpoint.workload.traces.rows import BadRow, RowLog
from setpoint.workload.traces.trace import MAX_ROWS, Trace, TraceError, Turn

CHARS_A_TOKEN = 4.2
"""English text has about so many characters a token of a byte-pair vocabulary; only for counts that nobody counted."""

MAX_CONVERSATION_CHARS = 16 << 20
MAX_TEXT_CHARS = 256 << 20
MAX_TURNS = 1000

_READ_CHARS = 1 << 20
_LISTS = ("conversations", "conversation", "messages", "items")
_USERS = frozenset({"human", "user"})
_MODELS = frozenset({"gpt", "chatgpt", "bing", "bard", "assistant", "model"})
_BETWEEN = " \t\r\n,[]"
_DECODER = json.JSONDecoder()


def matches(row: dict[str, Any]) -> bool:
    """Whether an object is a conversation."""
    return any(isinstance(row.get(name), list) for name in _LISTS)


def read_sharegpt(path: Path) -> Trace:
    """The conversations in the file. Raises ``TraceError``."""
    log = RowLog(path, "conversation")
    conversations: list[tuple[Turn, ...]] = []
    chars = 0
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            for number, entry in enumerate(_objects(file, path), 1):
                if len(conversations) >= MAX_ROWS or chars > MAX_TEXT_CHARS:
                    log.more = True
                    break
                try:
                    turns = _turns(entry)
                except BadRow as error:
                    log.note_bad(number, str(error))
                    continue
                if not turns:
                    log.note_failed()
                    continue
                log.note_good()
                conversations.append(turns)
                chars += sum(len(turn.prompt) + len(turn.answer) for turn in turns)
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from error
    log.check()
    return Trace(
        name=str(path),
        format="sharegpt",
        prompt_tokens=np.array([estimated_tokens(turns[0].prompt) for turns in conversations], dtype=np.int64),
        output_tokens=np.array([estimated_tokens(turns[0].answer) for turns in conversations], dtype=np.int64),
        conversations=conversations,
        exact=False,
        notes=tuple(_notes(log, len(conversations))),
    )


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has, at least 1."""
    return max(1, round(len(text) / CHARS_A_TOKEN))


def _notes(log: RowLog, kept: int) -> Iterator[str]:
    if log.bad_count:
        yield f"{log.bad_count} of {log.read} conversations were left out as unreadable ({'; '.join(log.bad)})."
    if log.failed:
        yield f"{log.failed} of {log.read} conversations were left out: nobody asks and is answered in them."
    if log.more:
        yield f"Only the first {kept} conversations were read; the file has more."


def _objects(file: TextIO, path: Path) -> Iterator[Any]:
    """The entries of a JSON array, or JSON objects one after the other, decoded as they are read."""
    text, place = "", 0
    ended = False
    while True:
        while place < len(text) and text[place] in _BETWEEN:
            place += 1
        if place < len(text):
            try:
                entry, end = _DECODER.raw_decode(text, place)
            except (ValueError, RecursionError) as error:
                if ended or len(text) - place > MAX_CONVERSATION_CHARS:
                    raise TraceError(f"{path}: broken JSON at {text[place : place + 40]!r}: is the file whole?") from error
            else:
                if end < len(text) or ended:
                    yield entry
                    place = end
                    continue
        elif ended:
            return
        more = file.read(max(_READ_CHARS, len(text) - place))
        text, place = text[place:] + more, 0
        ended = not more


def _turns(entry: Any) -> tuple[Turn, ...]:
    """The turns that have an answer, a system message before the first prompt. Raises ``BadRow``."""
    messages = next((entry[name] for name in _LISTS if isinstance(entry.get(name), list)), None) if _is_dict(entry) else None
    if messages is None:
        raise BadRow("it has no list of conversations or messages")
    turns: list[Turn] = []
    asked: list[str] = []
    for message in messages[: 2 * MAX_TURNS + 1]:
        role, text = _message(message)
        if role in _MODELS:
            if asked and text.strip():
                turns.append(Turn("\n\n".join(asked), text))
                asked = []
        elif (role in _USERS or role == "system") and text.strip():
            asked.append(text)
    return tuple(turns)


def _message(message: Any) -> tuple[str, str]:
    if not _is_dict(message):
        raise BadRow("a message in it is no JSON object")
    role, text = message.get("from", message.get("role")), message.get("value", message.get("content"))
    if not isinstance(role, str) or not isinstance(text, str | None):
        raise BadRow("a message in it has no from and value (or role and content) in text")
    return role.lower(), text or ""


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)
