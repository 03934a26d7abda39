"""What an answer is to look like: ``response_format`` as OpenAI has it, and vLLM's fields, old and new."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Self

from pydantic import Field, field_validator, model_validator

from setpoint.engine.constraint import GrammarKind, GrammarSpec
from setpoint.server.errors import invalid
from setpoint.server.fields import Body, unsupported, wrong
from setpoint.server.json_bounds import require_bounded

MAX_CHOICES: Final = 1024
MAX_SCHEMA_WEIGHT: Final = 30_000
ANY_OBJECT: Final = '{"type": "object"}'
Choices = Annotated[list[str], Field(min_length=1, max_length=MAX_CHOICES)]


def _schema_text(value: dict[str, Any] | str, field: str) -> str:
    """A schema given as an object or as its text. Raises ``ApiError`` 400."""
    if isinstance(value, dict):
        return json.dumps(value)
    try:
        require_bounded(value.encode("utf-8", "replace"), MAX_SCHEMA_WEIGHT)
        schema = json.loads(value)
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise invalid(f"{field}: must be a JSON schema, as an object or as the text of one.", field)
    return json.dumps(schema)


class JsonSchemaFormat(Body):
    """``response_format.json_schema``. The answer fits the schema whether ``strict`` says so or not."""

    name: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(Body):
    """``{"type": "text" | "json_object" | "json_schema"}``."""

    type: str
    json_schema: JsonSchemaFormat | None = None

    @field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ("text", "json_object", "json_schema"):
            raise unsupported(f"response_format of type '{value[:64]}'")
        return value

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if self.type == "json_schema" and (self.json_schema is None or self.json_schema.schema_ is None):
            raise wrong("type 'json_schema' needs json_schema.schema")
        return self

    def spec(self) -> GrammarSpec | None:
        """``None`` for text."""
        if self.type == "json_schema" and self.json_schema is not None:
            return GrammarSpec(
                GrammarKind.JSON_SCHEMA, json.dumps(self.json_schema.schema_), "response_format.json_schema.schema"
            )
        return GrammarSpec(GrammarKind.JSON_SCHEMA, ANY_OBJECT, "response_format") if self.type == "json_object" else None


class StructuredOutputs(Body):
    """vLLM's ``structured_outputs``: exactly one of its ways to say it."""

    json_: dict[str, Any] | str | None = Field(default=None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None
    structural_tag: Any = None
    whitespace_pattern: Any = None

    @field_validator("structural_tag", "whitespace_pattern")
    @classmethod
    def _refused(cls, value: Any) -> Any:
        if value is not None:
            raise unsupported("this way to describe an answer")
        return value


class StructureFields(Body):
    """The fields of a request that say what the answer looks like; at most one of them may."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = None
    guided_whitespace_pattern: Any = None

    @field_validator("guided_whitespace_pattern")
    @classmethod
    def _refused(cls, value: Any) -> Any:
        if value is not None:
            raise unsupported("'guided_whitespace_pattern'")
        return value

    def grammar_spec(self) -> GrammarSpec | None:
        """What was asked for; ``None``: any text will do. Raises ``ApiError`` 400 if two fields ask for something."""
        found = [spec for spec in (self.response_format.spec() if self.response_format is not None else None,) if spec]
        inner = self.structured_outputs or StructuredOutputs()
        ways: list[tuple[str, dict[str, Any] | str | None, str | None, list[str] | None, str | None]] = [
            ("guided_", self.guided_json, self.guided_regex, self.guided_choice, self.guided_grammar),
            ("structured_outputs.", inner.json_, inner.regex, inner.choice, inner.grammar),
        ]
        for prefix, schema, regex, choice, grammar in ways:
            if schema is not None:
                field = f"{prefix}json"
                found.append(GrammarSpec(GrammarKind.JSON_SCHEMA, _schema_text(schema, field), field))
            if regex is not None:
                found.append(GrammarSpec(GrammarKind.REGEX, regex, f"{prefix}regex"))
            if choice is not None:
                found.append(GrammarSpec(GrammarKind.CHOICE, json.dumps(choice), f"{prefix}choice"))
            if grammar is not None:
                found.append(GrammarSpec(GrammarKind.GRAMMAR, grammar, f"{prefix}grammar"))
        if inner.json_object:
            found.append(GrammarSpec(GrammarKind.JSON_SCHEMA, ANY_OBJECT, "structured_outputs.json_object"))
        if len(found) > 1:
            raise invalid(f"{found[1].field}: cannot be combined with {found[0].field}; give one of them.", found[1].field)
        return found[0] if found else None
