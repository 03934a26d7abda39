"""JSON schemas made to end: where a model could go on for ever without breaking the schema, it is given a bound.

An object that lists its properties and says nothing of others gets no others; a number has at most 15 digits before its
point and 9 after it, and no exponent. What fits the bounded schema fits the schema that was asked for. Where an object is
put together from parts that must all fit, a bound in one part could forbid what another asks for: such a schema stays as it is.
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
# A number that says so itself is bounded, or nearly.
NUMBER_WORDS: Final = frozenset(("multipleOf", "enum", "const"))
LARGEST: Final = 10**15
SMALLEST: Final = 1e-9
REFERENCES: Final = frozenset(("$ref", "$dynamicRef", "anyOf", "oneOf"))
OBJECT_WORDS: Final = frozenset(("properties", "required", "additionalProperties"))
# Under these keys the values are data, not schemas.
DATA: Final = frozenset(("const", "enum", "default", "examples", "example", "required", "x-guidance"))
# Under these keys the keys are names, and the values schemas.
NAMED: Final = frozenset(("properties", "$defs", "definitions", "patternProperties", "dependentSchemas"))


def ending(schema: Any) -> Any:
    """``schema`` with bounds where it has none and may have them; the argument is not changed."""
    return schema if _composes(schema) else _bound(schema)


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


def _bound(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_bound(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in NAMED and isinstance(value, Mapping):
            made[key] = {name: _bound(part) for name, part in value.items()}
        else:
            made[key] = value if key in DATA else _bound(value)
    properties, required = schema.get("properties"), schema.get("required", [])
    if (
        isinstance(properties, Mapping)
        and not OPEN_BESIDE & schema.keys()
        and isinstance(required, list)
        and all(name in properties for name in required)
    ):
        made["additionalProperties"] = False
    _bound_number(made)
    return made


def _bound_number(schema: dict[str, Any]) -> None:
    given = schema.get("type")
    types = given if isinstance(given, list) else [given]
    if not ("number" in types or "integer" in types) or NUMBER_WORDS & schema.keys():
        return
    if "number" in types:
        schema["multipleOf"] = SMALLEST
    if not {"minimum", "exclusiveMinimum"} & schema.keys():
        schema["minimum"] = -LARGEST
    if not {"maximum", "exclusiveMaximum"} & schema.keys():
        schema["maximum"] = LARGEST
