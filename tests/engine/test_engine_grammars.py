"""Grammars over a vocabulary of bytes: what they allow, what cannot be compiled, and what is remembered."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from setpoint.engine.chat_template import ToolStyle
from setpoint.engine.constraint import GrammarKind, GrammarSpec, Matching, is_allowed, mask_words
from setpoint.engine.grammars import MAX_CACHED, MAX_GRAMMAR_CHARACTERS, GrammarCompiler
from setpoint.engine.request import InvalidRequest

EOS = 256
VOCABULARY = 300
PIECES = [bytes([byte]) for byte in range(256)] + [b""] * (VOCABULARY - 256)


def compiler() -> GrammarCompiler:
    return GrammarCompiler(PIECES, {EOS}, {EOS}, lambda text: list(text.encode()))


COMPILER = compiler()


def begin(kind: GrammarKind, text: str) -> Matching:
    return COMPILER.compile(GrammarSpec(kind, text, "field")).begin()


def allowed(matching: Matching) -> set[int]:
    bits = np.zeros(mask_words(VOCABULARY), dtype=np.int32)
    matching.allowed(bits)
    assert not matching.error
    return {token for token in range(VOCABULARY) if is_allowed(bits, token)}


def accepts(matching: Matching, text: str) -> bool:
    """Whether ``text`` may be written byte by byte and the answer may end there."""
    for byte in text.encode():
        if byte not in allowed(matching):
            return False
        matching.advance([byte])
    return EOS in allowed(matching)


def wander(matching: Matching, dice: np.random.Generator, most: int) -> str:
    """An answer made of allowed bytes drawn at random; ends as soon as it may."""
    out = bytearray()
    while len(out) < most:
        choices = allowed(matching)
        if EOS in choices:
            return out.decode()
        byte = int(dice.choice(sorted(choices)))
        out.append(byte)
        matching.advance([byte])
    return ""


def test_choices_and_expressions() -> None:
    words = json.dumps(["yes", 'no "really"', "été"])
    for text in ("yes", 'no "really"', "été"):
        assert accepts(begin(GrammarKind.CHOICE, words), text)
    assert allowed(begin(GrammarKind.CHOICE, words)) == {ord("y"), ord("n"), "é".encode()[0]}
    assert accepts(begin(GrammarKind.REGEX, r"\d{3}-[a-f]+"), "123-abc")
    assert not accepts(begin(GrammarKind.REGEX, r"\d{3}-[a-f]+"), "123-")
    for rules in ('start: "a" INT\nINT: /[0-9]+/', 'root ::= "a" [0-9]+'):
        assert accepts(begin(GrammarKind.GRAMMAR, rules), "a42")


def test_json_is_written_as_python_writes_it_and_ends() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {}}},
        "required": ["a"],
    }
    text = json.dumps(schema)
    assert accepts(begin(GrammarKind.JSON_SCHEMA, text), json.dumps({"a": 1, "b": [1, {"x": None}]}))
    for other in ('{"a":1}', '{ "a": 1}', '{"a": 1}\n', '{"a": 1, "c": 2}'):
        assert not accepts(begin(GrammarKind.JSON_SCHEMA, text), other)


def test_numbers_end_and_bounds_of_the_schema_go_first() -> None:
    number = '{"type": "number"}'
    for text in ("0", "-12.000000001", "123456789012345.5", "0.5"):
        assert accepts(begin(GrammarKind.JSON_SCHEMA, number), text)
    for text in ("0.0000000000", "1234567890123456", "1e5"):
        assert not accepts(begin(GrammarKind.JSON_SCHEMA, number), text)
    tiny = '{"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e-10}'
    assert accepts(begin(GrammarKind.JSON_SCHEMA, tiny), "0.00000000001")
    large = json.dumps({"type": "integer", "minimum": 2 * 10**15})
    assert accepts(begin(GrammarKind.JSON_SCHEMA, large), "3" + "0" * 15)


SCHEMAS: list[dict[str, Any]] = [
    {"type": "integer", "minimum": -3, "maximum": 1200},
    {"type": "array", "items": {"enum": ["a", 2, None]}, "minItems": 1, "maxItems": 3},
    {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
    {"type": "object", "properties": {"x": {"type": "boolean"}, "y": {"const": 5}}, "required": ["x", "y"]},
    {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 3}]},
]


@settings(max_examples=40, deadline=None)
@given(schema=st.sampled_from(SCHEMAS), seed=st.integers(0, 1 << 30))
def test_whatever_is_allowed_fits_the_schema(schema: dict[str, Any], seed: int) -> None:
    text = wander(begin(GrammarKind.JSON_SCHEMA, json.dumps(schema)), np.random.default_rng(seed), 400)
    Draft202012Validator(schema).validate(json.loads(text))


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (GrammarKind.REGEX, "[a-z", "unclosed"),
        (GrammarKind.REGEX, "(?=a)b", "look-around"),
        (GrammarKind.JSON_SCHEMA, '{"type": "foo"}', "foo"),
        (GrammarKind.JSON_SCHEMA, '{"not": {}}', "not"),
        (GrammarKind.JSON_SCHEMA, '{"type": "string", "format": "nope"}', "nope"),
        (GrammarKind.GRAMMAR, "start: missing", "missing"),
        (GrammarKind.GRAMMAR, "", "root"),
        (GrammarKind.REGEX, "a" * (MAX_GRAMMAR_CHARACTERS + 1), str(MAX_GRAMMAR_CHARACTERS)),
    ],
)
def test_what_cannot_be_compiled_names_the_field(kind: GrammarKind, text: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as refused:
        COMPILER.compile(GrammarSpec(kind, text, "guided_x"))
    assert refused.value.field_name == "guided_x"
    assert str(refused.value).startswith("guided_x: ")
    assert "\n" not in str(refused.value)


def test_grammars_are_remembered_and_forgotten() -> None:
    own = compiler()
    specs = [GrammarSpec(GrammarKind.REGEX, f"a{number}", "x") for number in range(MAX_CACHED + 1)]
    first = own.compile(specs[0])
    assert own.compile(GrammarSpec(GrammarKind.REGEX, "a0", "other")) is first
    for spec in specs[1:]:
        own.compile(spec)
    assert own.compile(specs[-1]) is own.compile(specs[-1])
    assert own.compile(specs[0]) is not first


def test_answers_of_one_grammar_do_not_know_each_other() -> None:
    grammar = COMPILER.compile(GrammarSpec(GrammarKind.REGEX, "ab|cd", "x"))
    one, other = grammar.begin(), grammar.begin()
    one.advance([ord("a")])
    assert (allowed(one), allowed(other)) == ({ord("b")}, {ord("a"), ord("c")})
    assert (one.consumed, other.consumed) == (1, 0)
    other.advance([ord("z")])
    assert other.error


WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def calls(style: ToolStyle, *, forced: bool, most: int = 2) -> Matching:
    tools = [{"name": "weather", "parameters": WEATHER}, {"name": "now", "parameters": None}]
    wanted = {"style": style.value, "forced": forced, "most": most, "tools": tools}
    return begin(GrammarKind.TOOL_CALLS, json.dumps(wanted))


CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def test_calls_that_must_be_made() -> None:
    assert accepts(calls(ToolStyle.HERMES, forced=True), CALL)
    assert accepts(calls(ToolStyle.HERMES, forced=True), f"{NOW}\n{CALL}")
    for text in ("", "Hello", f"{NOW}\n{NOW}\n{NOW}", CALL.replace("city", "town"), NOW.replace("{}", '{"x": 1}')):
        assert not accepts(calls(ToolStyle.HERMES, forced=True), text)
    assert not accepts(calls(ToolStyle.HERMES, forced=True, most=1), f"{NOW}\n{CALL}")
    assert accepts(calls(ToolStyle.JSON, forced=True), '{"name": "weather", "parameters": {"city": "Rome"}}')


def test_calls_that_may_be_made() -> None:
    for text in ("", "Hello <there>", CALL, f"So: {CALL} and {NOW}"):
        assert accepts(calls(ToolStyle.HERMES, forced=False), text)
    assert not accepts(calls(ToolStyle.HERMES, forced=False), CALL.replace("city", "town"))
