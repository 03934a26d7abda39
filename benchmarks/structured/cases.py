"""Prompts and JSON schemas of many kinds, for answers that must parse and validate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STRING = {"type": "string"}
SHORT = {"type": "string", "maxLength": 40}


def record(**properties: Any) -> dict[str, Any]:
    """An object that must have exactly these properties."""
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


SCHEMAS: dict[str, dict[str, Any]] = {
    "flat": record(name=STRING, age={"type": "integer", "minimum": 0, "maximum": 120}, active={"type": "boolean"}),
    "nested": record(
        title=SHORT,
        author=record(name=SHORT, born={"type": "integer", "minimum": 1500, "maximum": 2020}),
        address=record(city=SHORT, position=record(lat={"type": "number"}, lon={"type": "number"})),
    ),
    "array": record(tags={"type": "array", "items": SHORT, "minItems": 1, "maxItems": 4}),
    "array of objects": {
        "type": "array",
        "items": record(item=SHORT, quantity={"type": "integer", "minimum": 1, "maximum": 99}),
        "minItems": 2,
        "maxItems": 5,
    },
    "enums": record(
        mood={"enum": ["good", "bad", "mixed"]}, stars={"enum": [1, 2, 3, 4, 5]}, kind={"const": "review"}, note=SHORT
    ),
    "numbers": record(
        price={"type": "number", "minimum": 0, "maximum": 1000},
        discount={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        units={"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 500},
    ),
    "patterns": record(
        code={"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
        color={"type": "string", "pattern": "^#[0-9a-f]{6}$"},
        day={"type": "string", "format": "date"},
    ),
    "optional": {
        "type": "object",
        "properties": {"name": SHORT, "nickname": {"type": ["string", "null"], "maxLength": 30}, "email": SHORT},
        "required": ["name"],
    },
    "alternatives": record(
        shape={
            "anyOf": [
                record(kind={"const": "circle"}, radius={"type": "integer", "minimum": 1, "maximum": 9}),
                record(kind={"const": "square"}, side={"type": "integer", "minimum": 1, "maximum": 9}),
            ]
        }
    ),
    "referenced": {
        "$defs": {"person": record(name=SHORT, role={"enum": ["lead", "member"]})},
        **record(
            team=SHORT,
            lead={"$ref": "#/$defs/person"},
            others={"type": "array", "maxItems": 3, "items": {"$ref": "#/$defs/person"}},
        ),
    },
}
SUBJECTS = (
    "a lighthouse keeper", "the city of Lisbon", "a used bicycle", "a detective novel", "a bowl of soup",
    "the first day at school", "a football match", "an old radio", "a train journey", "a garden in spring",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One request."""

    name: str
    schema: dict[str, Any]
    prompt: str
    temperature: float
    seed: int


def cases() -> list[Case]:
    """200: every schema with every subject, greedy and at temperature 1."""
    made = []
    for temperature in (0.0, 1.0):
        for name, schema in SCHEMAS.items():
            for subject in SUBJECTS:
                prompt = f"Write JSON about {subject}. Answer with the JSON alone."
                made.append(Case(name, schema, prompt, temperature, len(made)))
    return made
