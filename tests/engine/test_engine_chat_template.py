"""Chat templates: what they are given, what they may refuse, and how their models call tools."""

from __future__ import annotations

import pytest

from setpoint.engine.chat_template import ChatTemplate, ToolStyle
from setpoint.engine.request import EngineFailed, InvalidRequest

HI = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"x": "<é>"}}}


def test_tools_and_special_tokens_reach_the_template() -> None:
    template = ChatTemplate("{{ bos_token }}{% if tools %}{{ tools[0].function | tojson }}{% endif %}", {"bos_token": "<s>"})
    assert template.render(HI) == "<s>"
    assert template.render(HI, tools=[TOOL]) == '<s>{"name": "f", "parameters": {"x": "<é>"}}'


def test_what_templates_in_the_wild_use() -> None:
    source = '{% for m in messages %}{% if m.role == "x" %}{% continue %}{% endif %}{{ m | tojson(indent=1) }}{% endfor %}'
    assert ChatTemplate(source, {}).render([{"role": "x"}, {"a": 1}]) == '{\n "a": 1\n}'
    assert len(ChatTemplate('{{ strftime_now("%Y") }}', {}).render(HI)) == 4
    thinking = "{% if enable_thinking is false %}<think></think>{% endif %}{{ messages[0].content }}"
    assert ChatTemplate(thinking, {}).render(HI, extra={"enable_thinking": False, "messages": []}) == "<think></think>hi"
    marked = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    assert ChatTemplate(marked, {}).render(HI) == "hi"


@pytest.mark.parametrize(
    ("source", "style"),
    [
        ("{{ messages }}", ToolStyle.NONE),
        ("{# tools #}{{ messages }}", ToolStyle.NONE),
        ("{% set tools = 1 %}{{ tools }}", ToolStyle.NONE),
        ("{% if tools %}<tool_call>{% endif %}", ToolStyle.HERMES),
        ('{% if tools %}{"name": f, "parameters": p}{% endif %}', ToolStyle.JSON),
        ('{% if tools %}{"name": f, "parameters": p}<tool_call>{% endif %}', ToolStyle.HERMES),
        ("{% if tools %}[TOOL_CALLS]{% endif %}", ToolStyle.NONE),
        ('{% if tools %}<tool_call><function=f>"parameters"{% endif %}', ToolStyle.NONE),
    ],
)
def test_the_style_of_calls_follows_from_the_template(source: str, style: ToolStyle) -> None:
    assert ChatTemplate(source, {}).tool_style is style


@pytest.mark.parametrize("source", ['{{ raise_exception("no") }}', "{{ messages[5].x }}", "{{ 1 / 0 }}", "{{ messages + 1 }}"])
def test_a_refusal_is_the_messages_fault(source: str) -> None:
    with pytest.raises(InvalidRequest, match="chat template refused") as refused:
        ChatTemplate(source, {}).render(HI)
    assert refused.value.field_name == "messages"


def test_what_is_no_template() -> None:
    with pytest.raises(EngineFailed, match="chat template"):
        ChatTemplate("{% if %}", {})
