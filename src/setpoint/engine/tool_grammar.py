"""Rules, in llguidance's Lark dialect, for answers that call tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from llguidance import StructTag

from setpoint.engine.chat_template import ToolStyle

OPENING: Final = "<tool_call>"
CLOSING: Final = "</tool_call>"
NO_PARAMETERS: Final = {"type": "object", "properties": {}}


def tool_grammar(wanted: Mapping[str, Any], bound: Callable[[Any], Any], json_style: Mapping[str, Any]) -> str:
    """wanted: ``style``, ``forced``, ``most`` (calls, where they are forced) and ``tools`` (``name``, ``parameters``).

    Forced, the answer is nothing but calls; otherwise it is any text, in which every call that is begun is a good one.
    bound: what is done to the schemas of arguments. json_style: llguidance's options for the arguments.
    """
    style = ToolStyle(wanted["style"])
    before, after, word = (f"{OPENING}\n", f"\n{CLOSING}", "arguments") if style is ToolStyle.HERMES else ("", "", "parameters")
    begins = [f'{before}{{"name": {json.dumps(tool["name"])}, "{word}": ' for tool in wanted["tools"]]
    schemas = [{**bound(tool["parameters"] or NO_PARAMETERS), "x-guidance": dict(json_style)} for tool in wanted["tools"]]
    if not wanted["forced"]:
        tags = [
            StructTag(trigger=OPENING, begin=begin, grammar=schema, end="}" + after)
            for begin, schema in zip(begins, schemas, strict=True)
        ]
        return StructTag.to_grammar(tags, assume_special=False)
    most = wanted["most"] if style is ToolStyle.HERMES else 1
    more = f' ("\\n" call){{0,{most - 1}}}' if most > 1 else ""
    rules = ["%llguidance {}", f"start: call{more}"]
    rules.append("call: " + " | ".join(f"call_{index}" for index in range(len(begins))))
    for index, (begin, schema) in enumerate(zip(begins, schemas, strict=True)):
        rules.append(f"call_{index}: {json.dumps(begin)} arguments_{index} {json.dumps('}' + after)}")
        rules.append(f"arguments_{index}: %json {json.dumps(schema)}")
    return "\n".join(rules) + "\n"
