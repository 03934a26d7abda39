"""Schemas made to end: bounded where that takes nothing away, and left alone elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from setpoint.engine.ending_schema import LARGEST, SMALLEST, ending

A = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
CLOSED_A = {**A, "additionalProperties": False}


def test_objects_are_closed_at_every_depth() -> None:
    schema = {
        "type": "object",
        "properties": {"inner": A, "many": {"type": "array", "items": A}, "properties": {"type": "object"}},
        "$defs": {"a": A},
    }
    assert ending(schema) == {
        "type": "object",
        "properties": {"inner": CLOSED_A, "many": {"type": "array", "items": CLOSED_A}, "properties": {"type": "object"}},
        "$defs": {"a": CLOSED_A},
        "additionalProperties": False,
    }
    assert "additionalProperties" not in schema


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {**A, "additionalProperties": True},
        {**A, "patternProperties": {"^x": {}}},
        {**A, "required": ["b"]},
        {**A, "minProperties": 3},
        {"allOf": [A, {"properties": {"b": {}}}]},
        {"$defs": {"a": A}, "$ref": "#/$defs/a", "properties": {"b": {}}},
        {"properties": {"b": {}}, "anyOf": [A, {"required": ["b"]}]},
        {"enum": [{"properties": {"a": 1}}]},
        {"const": {"properties": {}}},
        {"properties": 5},
        [],
        True,
    ],
)
def test_what_says_more_or_is_composed_is_left_alone(schema: Any) -> None:
    assert ending(schema) == schema


def test_a_choice_of_objects_is_ending() -> None:
    assert ending({"anyOf": [A, {"type": "null"}]}) == {"anyOf": [CLOSED_A, {"type": "null"}]}


@pytest.mark.parametrize(
    ("schema", "added"),
    [
        ({"type": "number"}, {"multipleOf": SMALLEST, "minimum": -LARGEST, "maximum": LARGEST}),
        ({"type": ["integer", "null"]}, {"minimum": -LARGEST, "maximum": LARGEST}),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, {"multipleOf": SMALLEST}),
        ({"type": "number", "multipleOf": 0.5}, {}),
        ({"type": "integer", "enum": [1, 2]}, {}),
        ({"type": "string"}, {}),
    ],
)
def test_numbers_are_bounded(schema: dict[str, Any], added: dict[str, Any]) -> None:
    assert ending(schema) == {**schema, **added}
    assert ending({"items": schema}) == {"items": {**schema, **added}}
