"""Calls found in an answer: the same however the text is cut, and nothing of the answer lost."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from setpoint.engine.chat_template import ToolStyle
from setpoint.server.tool_calls import CallArguments, CallBegun, CallFinder, JsonEnd, Text

NAMES = ("get_weather", "add")
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(max_size=6), JSON_VALUES, max_size=3)


def read(
    text: str, cuts: list[int], *, style: ToolStyle = ToolStyle.HERMES, parallel: bool = True
) -> tuple[str, list[tuple[str, str]]]:
    """The text and the calls (name, arguments) of an answer that comes cut at ``cuts``."""
    finder = CallFinder(style, NAMES, parallel=parallel)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [piece for a, b in pairwise(edges) for piece in finder.feed(text[a:b])]
    pieces += finder.finish()
    said, calls = "", dict[int, list[str]]()
    for piece in pieces:
        if isinstance(piece, Text):
            said += piece.text
        elif isinstance(piece, CallBegun):
            assert piece.index == len(calls)
            assert piece.call_id.startswith("call_")
            calls[piece.index] = [piece.name, ""]
        else:
            assert isinstance(piece, CallArguments)
            calls[piece.index][1] += piece.text
    assert finder.calls == len(calls)
    return said, [(name, arguments) for name, arguments in calls.values()]


def hermes(name: str, arguments: dict[str, Any]) -> str:
    return f'<tool_call>\n{{"name": {json.dumps(name)}, "arguments": {json.dumps(arguments)}}}\n</tool_call>'


@given(
    before=st.text("ab <\n", max_size=6),
    arguments=st.lists(ARGUMENTS, min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 200), max_size=12),
)
def test_calls_come_whole_however_the_text_is_cut(before: str, arguments: list[dict[str, Any]], cuts: list[int]) -> None:
    text = before + "\n".join(hermes("add", each) for each in arguments)
    said, calls = read(text, cuts)
    assert said == before.rstrip()
    assert [(name, json.loads(given)) for name, given in calls] == [("add", each) for each in arguments]
    assert read(text, cuts, parallel=False)[1] == calls[:1]


@given(text=st.text(max_size=60), cuts=st.lists(st.integers(0, 60), max_size=8))
def test_text_without_calls_comes_as_it_is(text: str, cuts: list[int]) -> None:
    for style in (ToolStyle.HERMES, ToolStyle.JSON):
        assert read(text, cuts, style=style) == (text, [])


@pytest.mark.parametrize(
    ("inner", "call"),
    [
        ('{"arguments": {"x": 1}, "name": "add"}', ("add", '{"x": 1}')),
        ('{"name": "add"}', ("add", "{}")),
        ('{"name": "add", "parameters": {"x": "}"}}', ("add", '{"x": "}"}')),
        ('{"name": "add", "arguments": "{\\"x\\": 1}"}', ("add", '{"x": 1}')),
        ('{"arguments": "{\\"x\\": 1}", "name": "add"}', ("add", '{"x": 1}')),
        ('{"name": "add", "arguments": "five"}', ("add", '"five"')),
    ],
)
def test_other_ways_to_write_a_call(inner: str, call: tuple[str, str]) -> None:
    for step in (1, 3, 1000):
        text = f"<tool_call>{inner}</tool_call>"
        assert read(text, list(range(0, len(text), step))) == ("", [call])


@pytest.mark.parametrize("inner", ["", "not json", '{"name": 5}', "[1]", '{"name": ""}', '{"nam'])
def test_what_is_no_call_is_text(inner: str) -> None:
    for text in (f"so: <tool_call>{inner}</tool_call> there", f"<tool_call>{inner}", "a <tool_cal", f"{inner}</tool_call>"):
        assert read(text, list(range(len(text)))) == (text, [])


def test_arguments_are_handed_on_before_the_call_is_whole() -> None:
    finder = CallFinder(ToolStyle.HERMES, NAMES, parallel=True)
    assert finder.feed("<tool_call>\n{") == []
    begun, first = finder.feed('"name": "add", "arguments": {"x"')
    assert isinstance(begun, CallBegun)
    assert first == CallArguments(0, '{"x"')
    assert finder.feed(": 5") == [CallArguments(0, ": 5")]
    assert finder.feed("}}\n</tool_ca") == [CallArguments(0, "}")]
    assert finder.finish() == []


def test_a_json_answer_is_a_call_only_by_a_known_name() -> None:
    for text, name in (('{"name": "add", "parameters": {"x": 1}}', "add"), (' {"parameters": {"x": 1}, "name": "add"}', "add")):
        assert read(text, list(range(len(text))), style=ToolStyle.JSON) == ("", [(name, '{"x": 1}')])
    for text in ('{"name": "Ada", "parameters": {"x": 1}}', '{"city": "Rome"}', '{"name": "add"', 'See {"name": "add"}'):
        assert read(text, list(range(len(text))), style=ToolStyle.JSON) == (text, [])


def test_a_name_that_never_comes_is_not_waited_for() -> None:
    text = "<tool_call>" + "x" * 5000
    finder = CallFinder(ToolStyle.HERMES, NAMES, parallel=True)
    assert "".join(piece.text for piece in finder.feed(text) if isinstance(piece, Text)) == text


@given(value=JSON_VALUES, rest=st.sampled_from(["}", " }", ",", "]", '"', " "]))
def test_a_value_ends_where_it_ends(value: Any, rest: str) -> None:
    text = json.dumps(value)
    if text[0] not in '{["' and rest not in ("}", " }", ",", "]", " "):
        return
    assert JsonEnd().feed(text + rest) == len(text)
