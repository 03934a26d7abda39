"""Messages of a conversation: what may be in them, and how the chat template sees them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from setpoint.server.errors import ApiError
from setpoint.server.fields import Body, unsupported, wrong
from setpoint.server.json_bounds import require_bounded

MAX_MESSAGES: Final = 4096
MAX_PARTS: Final = 4096
MAX_CALLS: Final = 128
MAX_ARGUMENTS_WEIGHT: Final = 20_000
TOOL: Final = "tool"
ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", TOOL: TOOL}


def _content(value: object) -> object:
    """``null``, a string, or a list of text parts -> a string; parts are joined by newlines."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise PydanticCustomError("string_type", "must be a string or a list of text parts")
    if len(value) > MAX_PARTS:
        raise wrong(f"has {len(value)} parts, at most {MAX_PARTS} are allowed")
    texts: list[str] = []
    for part in value:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(kind, str):
            raise PydanticCustomError("string_type", "each part must be an object with a 'type'")
        if kind != "text":
            raise unsupported(f"content of type '{kind[:64]}'")
        text = part.get("text")
        if not isinstance(text, str):
            raise PydanticCustomError("string_type", "each text part must have a string 'text'")
        texts.append(text)
    return "\n".join(texts)


def _arguments(value: object) -> object:
    """An object or ``null``, as some clients send back what they took apart -> text."""
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value


class CalledFunction(Body):
    """Which function was called, and its arguments: JSON text, or whatever else the model wrote there."""

    name: str = Field(min_length=1, max_length=256)
    arguments: Annotated[str, BeforeValidator(_arguments)]

    def as_template_sees_it(self) -> dict[str, Any]:
        """With the arguments as an object, as templates write them out themselves; as text where they are none."""
        found = _object_in(self.arguments or "{}", depth=2)
        return {"name": self.name, "arguments": self.arguments if found is None else found}


def _object_in(text: str, *, depth: int) -> dict[str, Any] | None:
    """The JSON object that ``text`` is, or is a string of; ``None`` if it is none, a very large one, or cannot be written."""
    try:
        require_bounded(text.encode(), MAX_ARGUMENTS_WEIGHT)
        value = json.loads(text)
        if isinstance(value, str) and depth > 1:
            return _object_in(value, depth=depth - 1)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError, ApiError):
        return None
    return value if isinstance(value, dict) else None


class CalledTool(Body):
    """A call that the assistant made earlier."""

    id: str | None = Field(default=None, max_length=256)
    type: str | None = None
    function: CalledFunction

    @field_validator("type")
    @classmethod
    def _a_function(cls, value: str | None) -> str | None:
        if value not in (None, "function"):
            raise unsupported(f"a call of type '{str(value)[:64]}'")
        return value

    def as_template_sees_it(self) -> dict[str, Any]:
        """``{"id", "type", "function"}``."""
        return {"id": self.id, "type": "function", "function": self.function.as_template_sees_it()}


class Message(Body):
    """One message of a conversation; text only. ``developer`` is taken as ``system``, which templates know."""

    role: str
    content: Annotated[str | None, BeforeValidator(_content)] = None
    tool_calls: list[CalledTool] | None = Field(default=None, max_length=MAX_CALLS)
    tool_call_id: str | None = Field(default=None, max_length=256)

    @field_validator("role")
    @classmethod
    def _role(cls, value: str) -> str:
        if value == "function":
            raise unsupported("role 'function' (use 'tool')")
        if value not in ROLES:
            raise wrong(f"must be one of {', '.join(sorted(ROLES))}")
        return ROLES[value]

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise wrong("content is missing")
        if self.tool_calls and self.role != "assistant":
            raise wrong(f"a message of role '{self.role}' has no tool_calls, only one of role 'assistant'")
        if self.role == TOOL and self.tool_call_id is None:
            raise wrong("tool_call_id is missing: which call is this the result of?")
        return self

    @property
    def of_tools(self) -> bool:
        """Whether only a template that knows tools can write it."""
        return self.role == TOOL or bool(self.tool_calls)

    def as_template_sees_it(self) -> dict[str, object]:
        """``{"role", "content"}``, and what belongs to tools where there is any."""
        seen: dict[str, object] = {"role": self.role, "content": self.content or ""}
        if self.tool_calls:
            seen["tool_calls"] = [call.as_template_sees_it() for call in self.tool_calls]
        if self.role == TOOL:
            seen["tool_call_id"] = self.tool_call_id
        return seen
