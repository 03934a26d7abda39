"""Tools: which ones the model may call, whether it must, and what that means for its answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import field_validator

from setpoint.engine.chat_template import ToolStyle
from setpoint.engine.constraint import GrammarKind, GrammarSpec
from setpoint.server.errors import ApiError, invalid
from setpoint.server.fields import Body, unsupported, wrong

MAX_TOOLS: Final = 128
# A model that must call and may call often would go on until its tokens are spent.
MAX_FORCED_CALLS: Final = 8
NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


class FunctionSpec(Body):
    """What a tool is called, what it is for, and the JSON schema of its arguments."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise wrong("must have 1 to 64 letters, digits, underscores, dots or hyphens")
        return value


class Tool(Body):
    """One tool; only functions."""

    type: str
    function: FunctionSpec

    @field_validator("type")
    @classmethod
    def _a_function(cls, value: str) -> str:
        if value != "function":
            raise unsupported(f"a tool of type '{value[:64]}'")
        return value

    def as_template_sees_it(self) -> dict[str, object]:
        """As it was given."""
        return {"type": "function", "function": self.function.model_dump(exclude_none=True, exclude={"strict"})}


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools of a request and whether one must be called. ``parallel``: whether an answer may hold several calls."""

    tools: tuple[Tool, ...]
    forced: bool
    parallel: bool

    @property
    def names(self) -> frozenset[str]:
        """The names that may be called."""
        return frozenset(tool.function.name for tool in self.tools)

    @property
    def strict(self) -> bool:
        """Whether arguments must fit their schema even where no call must be made."""
        return any(tool.function.strict for tool in self.tools)

    def spec(self, style: ToolStyle) -> GrammarSpec | None:
        """The grammar that makes the model keep to this; ``None`` if it may write what it likes. Raises ``ApiError``."""
        if not self.forced and not self.strict:
            return None
        if not self.forced and style is ToolStyle.JSON:
            message = "tools: 'strict' is kept only where a call is required, with this model's chat template."
            raise invalid(message, "tools", code="unsupported_parameter")
        text = {
            "style": style.value,
            "forced": self.forced,
            "most": MAX_FORCED_CALLS if self.parallel else 1,
            "tools": [{"name": tool.function.name, "parameters": tool.function.parameters} for tool in self.tools],
        }
        return GrammarSpec(GrammarKind.TOOL_CALLS, json.dumps(text), "tools")


def tool_use(tools: Sequence[Tool], choice: object, *, parallel: bool) -> ToolUse | None:
    """What ``tools`` and ``tool_choice`` ask for together; ``None`` if no tool may be called. Raises ``ApiError`` 400."""
    if choice not in (None, "none", "auto") and not tools:
        raise invalid("tool_choice: needs 'tools' to choose from.", "tool_choice")
    names = [tool.function.name for tool in tools]
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise invalid(f"tools: two of them are called '{twice}'.", "tools")
    if not tools or choice == "none":
        return None
    if choice in (None, "auto", "required"):
        return ToolUse(tuple(tools), choice == "required", parallel)
    wanted = _named(choice)
    chosen = tuple(tool for tool in tools if tool.function.name == wanted)
    if not chosen:
        raise invalid(f"tool_choice: there is no tool called '{wanted[:64]}' in 'tools'.", "tool_choice")
    return ToolUse(chosen, True, False)


def _named(choice: object) -> str:
    if isinstance(choice, Mapping):
        if choice.get("type") != "function":
            message = f"tool_choice: type '{str(choice.get('type'))[:64]}' is not supported by this server."
            raise invalid(message, "tool_choice", code="unsupported_parameter")
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        if isinstance(name, str):
            return name
    words = '\'none\', \'auto\', \'required\' or {"type": "function", "function": {"name": ...}}'
    raise invalid(f"tool_choice: must be {words}.", "tool_choice")


def no_tools_in_template(param: str) -> ApiError:
    """400: the model was not made for tools, as far as its template tells."""
    message = (
        f"{param}: this model's chat template knows no tools;"
        " the server's option --chat-template FILE can give it one that does."
    )
    return invalid(message, param, code="unsupported_parameter")
