"""Finding calls of tools in an answer while it comes: what is text, what is a call, and how far its arguments go.

A call is ``<tool_call>`` around JSON, or, for models that write it so, an answer that is nothing but JSON. Arguments are
handed on as they come, as soon as the name is known. What begins like a call and is none is text after all.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from setpoint.engine.chat_template import ToolStyle
from setpoint.engine.tool_grammar import CLOSING, OPENING

HEAD: Final = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=[^\s])')
# A call whose name has not come within as many characters is not waited for any longer.
MAX_HEAD_CHARACTERS: Final = 4096
# Calls after these are dropped: clients keep every one.
MAX_CALLS: Final = 128


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A call, the ``index``-th of the answer; its arguments follow."""

    index: int
    call_id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A piece of the arguments of the ``index``-th call."""

    index: int
    text: str


Piece = Text | CallBegun | CallArguments


class JsonEnd:
    """Finds where a JSON value ends in text that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, text: str) -> int | None:
        """How many characters of ``text`` belong to the value; ``None`` if it goes on."""
        for at, character in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                if character == "\\":
                    self._escaped = True
                elif character == '"':
                    self._in_string = False
                    if self._depth == 0:
                        return at + 1
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    return at + (1 if self._depth == 0 else 0)
            elif self._depth == 0 and (character == "," or character.isspace()):
                return at
        return None


class CallFinder:
    """Takes an answer's text piece by piece and gives text and calls. One answer each.

    names: the tools there are. parallel: whether calls after the first count.
    """

    def __init__(self, style: ToolStyle, names: Collection[str], *, parallel: bool) -> None:
        self._style = style
        self._names = frozenset(names)
        self._most = MAX_CALLS if parallel else 1
        self._held = ""
        self._arguments: JsonEnd | None = None
        self._quoted: list[str] | None = None  # Arguments that are a string, of which nothing is told before its end.
        self._after = False  # Between the end of the arguments and the end of the call.
        self._inside = False
        self._silent = False
        self._blanks = ""
        self._began = False
        self.calls = 0

    def feed(self, text: str) -> list[Piece]:
        """What is certain after ``text``."""
        self._held += text
        pieces: list[Piece] = []
        while self._advance(pieces, last=False):
            pass
        return pieces

    def finish(self) -> list[Piece]:
        """What is still held back, when the answer ends."""
        pieces: list[Piece] = []
        while self._advance(pieces, last=True):
            pass
        if not self.calls:
            self._say(pieces, "", blanks=True)
        return pieces

    def _advance(self, pieces: list[Piece], *, last: bool) -> bool:
        """One step; False if nothing more can be told from what is held."""
        if not self._held and not (last and (self._inside or self._quoted)):
            return False
        if self._arguments is not None:
            return self._take_arguments(pieces, last=last)
        if self._after:
            return self._leave_call(last=last)
        if self._inside:
            return self._read_head(pieces, last=last)
        if self._style is ToolStyle.JSON:
            return self._begin_json(pieces, last=last)
        return self._look_for_call(pieces, last=last)

    def _look_for_call(self, pieces: list[Piece], *, last: bool) -> bool:
        before, mark, rest = self._held.partition(OPENING)
        if mark:
            self._say(pieces, before)
            self._held, self._inside = rest, True
            return True
        keep = 0 if last else next((n for n in range(len(OPENING) - 1, 0, -1) if self._held.endswith(OPENING[:n])), 0)
        cut = len(self._held) - keep
        self._say(pieces, self._held[:cut])
        self._held = self._held[cut:]
        return False

    def _begin_json(self, pieces: list[Piece], *, last: bool) -> bool:
        """The answer as a whole is a call, or it is text."""
        start = self._held.lstrip()
        if not self._began and not start and not last:
            return False
        if not self._began and start.startswith("{"):
            self._began = self._inside = True
            return True
        self._began = True
        self._say(pieces, self._held)
        self._held = ""
        return False

    def _read_head(self, pieces: list[Piece], *, last: bool) -> bool:
        """The name of the call that is held, or the discovery that it is none."""
        hermes = self._style is not ToolStyle.JSON
        head = HEAD.match(self._held)
        if head is not None:
            name = _string(head[1])
            if name is not None and (hermes or name in self._names):
                self._begin(pieces, name)
                self._held = self._held[head.end() :]
                self._arguments, self._inside = JsonEnd(), False
                self._quoted = [] if self._held.startswith('"') else None
                return True
        inner, end, rest = self._held.partition(CLOSING) if hermes else (self._held, "", "")
        if end or last:
            call = _whole_call(inner)
            if call is not None and (hermes or call[0] in self._names):
                self._begin(pieces, call[0])
                self._argue(pieces, call[1])
            else:
                self._say(pieces, (OPENING if hermes else "") + inner + end)
            self._held, self._inside = rest, False
            return True
        if len(self._held) > MAX_HEAD_CHARACTERS or (head is not None and not hermes):
            self._say(pieces, (OPENING if hermes else "") + self._held)
            self._held, self._inside = "", False
        return False

    def _take_arguments(self, pieces: list[Piece], *, last: bool) -> bool:
        assert self._arguments is not None
        end = self._arguments.feed(self._held)
        text = self._held if end is None else self._held[:end]
        if self._quoted is None:
            self._argue(pieces, text)
        else:
            self._quoted.append(text)
            if end is not None or last:
                whole, self._quoted = "".join(self._quoted), None
                self._argue(pieces, _unquoted(whole))
        if end is None:
            self._held = ""
            return False
        self._held, self._arguments, self._after = self._held[end:], None, True
        return True

    def _leave_call(self, *, last: bool) -> bool:
        """Skip what closes the call."""
        if self._style is ToolStyle.JSON:
            self._held = ""
            return False
        _, mark, rest = self._held.partition(CLOSING)
        if mark:
            self._held, self._after = rest, False
            return True
        self._held = "" if last else self._held[-len(CLOSING) :]
        return False

    def _begin(self, pieces: list[Piece], name: str) -> None:
        self._silent = self.calls >= self._most
        if not self._silent:
            pieces.append(CallBegun(self.calls, f"call_{secrets.token_hex(12)}", name))
            self.calls += 1

    def _argue(self, pieces: list[Piece], text: str) -> None:
        if text and not self._silent:
            pieces.append(CallArguments(self.calls - 1, text))

    def _say(self, pieces: list[Piece], text: str, *, blanks: bool = False) -> None:
        """Text of the answer; blanks at its end wait until it is known that no call follows."""
        whole = self._blanks + text
        solid = whole if blanks else whole.rstrip()
        self._blanks = whole[len(solid) :]
        if solid:
            pieces.append(Text(solid))


def _string(quoted: str) -> str | None:
    try:
        name = json.loads(quoted)
    except ValueError:
        return None
    return name if isinstance(name, str) and name else None


def _unquoted(text: str) -> str:
    """Arguments that a model wrote as a string of JSON, as that JSON; a string of anything else as it is."""
    try:
        inner = json.loads(text)
        if isinstance(inner, str) and isinstance(json.loads(inner), dict):
            inner.encode()  # Half a character cannot be sent.
            return inner
    except (ValueError, RecursionError):
        pass
    return text


def _whole_call(text: str) -> tuple[str, str] | None:
    """Name and arguments (as JSON text) of a call in whatever order its parts come; ``None`` if it is none."""
    try:
        call: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or not call["name"]:
        return None
    arguments = call.get("arguments", call.get("parameters", {}))
    return call["name"], arguments if isinstance(arguments, str) else json.dumps(arguments)
