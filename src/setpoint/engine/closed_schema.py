"""JSON schemas made to end: an object that lists its properties and says nothing of others is given no others.

A model that may invent properties goes on inventing them until its tokens are spent. What fits the closed schema fits the
schema that was asked for. Where an object is put together from parts that must all fit, closing a part would forbid what
another asks for: such a schema stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

# Keywords that say more about an object's properties than "properties" and "required" do.
OPEN_BESIDE: Final = frozenset(
    {
        "additionalProperties",
        "unevaluatedProperties",
        "patternProperties",
        "propertyNames",
        "minProperties",
        "dependentSchemas",
        "dependentRequired",
        "if",
    }
)
REFERENCES: Final = frozenset(("$ref", "$dynamicRef", "anyOf", "oneOf"))
OBJECT_WORDS: Final = frozenset(("properties", "required", "additionalProperties"))
# Under these keys the values are data, not schemas.
DATA: Final = frozenset(("const", "enum", "default", "examples", "example", "required", "x-guidance"))
# Under these keys the keys are names, and the values schemas.
NAMED: Final = frozenset(("properties", "$defs", "definitions", "patternProperties", "dependentSchemas"))


def closed(schema: Any) -> Any:
    """``schema`` with ``additionalProperties: false`` where it may be added; the argument is not changed."""
    return schema if _composes(schema) else _close(schema)


def _composes(schema: Any) -> bool:
    """Whether some object must fit several schemas at once."""
    if isinstance(schema, list):
        return any(map(_composes, schema))
    if not isinstance(schema, Mapping):
        return False
    keys = schema.keys()
    return "allOf" in keys or bool(REFERENCES & keys and OBJECT_WORDS & keys) or any(map(_composes, _parts(schema)))


def _parts(schema: Mapping[str, Any]) -> Iterator[Any]:
    """The schemas right under a schema."""
    for key, value in schema.items():
        if key in NAMED and isinstance(value, Mapping):
            yield from value.values()
        elif key not in DATA:
            yield value


def _close(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_close(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in NAMED and isinstance(value, Mapping):
            made[key] = {name: _close(part) for name, part in value.items()}
        else:
            made[key] = value if key in DATA else _close(value)
    properties, required = schema.get("properties"), schema.get("required", [])
    if (
        isinstance(properties, Mapping)
        and not OPEN_BESIDE & schema.keys()
        and isinstance(required, list)
        and all(name in properties for name in required)
    ):
        made["additionalProperties"] = False
    return made
