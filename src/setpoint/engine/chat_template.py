"""A model's chat template: a Jinja program that writes a conversation as the model was trained to read it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from setpoint.engine.request import EngineFailed, InvalidRequest

NO_VARIABLES: Mapping[str, object] = MappingProxyType({})
# A template is a program over what the client sent: besides its own errors it may trip over a type or a missing key.
REFUSALS = (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)


class ToolStyle(StrEnum):
    """How a model writes down a call of a tool, by what its template says.

    ``HERMES``: ``<tool_call>`` around ``{"name": ..., "arguments": ...}``. ``JSON``: nothing but ``{"name": ...,
    "parameters": ...}``. ``NONE``: the template knows no tools, or writes calls in another way.
    """

    NONE = "none"
    HERMES = "hermes"
    JSON = "json"


class GenerationTag(jinja2.ext.Extension):
    """``{% generation %}`` marks what a model is trained on; in a prompt its text is as any other."""

    tags = {"generation"}  # noqa: RUF012 (as the library declares it)

    def parse(self, parser: Parser) -> list[Node]:
        """The body alone."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled template with the model's special tokens. Raises ``EngineFailed`` if ``source`` is no template."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationTag]
        )
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        environment.filters["tojson"] = _to_json
        try:
            self._template = environment.from_string(source)
            known = jinja2.meta.find_undeclared_variables(environment.parse(source))
        except jinja2.TemplateError as error:
            raise EngineFailed(f"the model's chat template cannot be read: {error}") from error
        self._special_tokens = dict(special_tokens)
        self.tool_style = _tool_style(source) if "tools" in known else ToolStyle.NONE

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] = (),
        add_generation_prompt: bool = True,
        extra: Mapping[str, object] = NO_VARIABLES,
    ) -> str:
        """The conversation as a prompt. extra: more variables (``enable_thinking``), which do not take the place of the others.

        Raises ``InvalidRequest`` where the template refuses it.
        """
        own = {"messages": messages, "tools": list(tools) or None, "add_generation_prompt": add_generation_prompt}
        try:
            return self._template.render({**extra, **self._special_tokens, **own})
        except REFUSALS as error:
            raise InvalidRequest(f"the model's chat template refused the messages: {error}", "messages") from error


def _tool_style(source: str) -> ToolStyle:
    """Others than these two exist (``[TOOL_CALLS]``, calls as XML): better no tools than calls that nobody finds."""
    if "<tool_call>" in source and "<function=" not in source:
        return ToolStyle.HERMES
    return ToolStyle.JSON if '"parameters"' in source and "<tool_call>" not in source else ToolStyle.NONE


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
    """As Python writes it: templates put tool schemas into prompts, not into HTML pages."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
