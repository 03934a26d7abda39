"""YAML text to a tree of nodes with line numbers, within bounds that make hostile files harmless.

Refused here, each with one message: text over ``MAX_CHARS``, nesting over ``MAX_DEPTH``, anchors and aliases (so no
"billion laughs"), tags, more than one document, and a file that is empty or not a mapping at the top.
"""

from __future__ import annotations

from typing import Any

import yaml

from setpoint.requirement.problems import Problems, printable, quoted

MAX_CHARS = 64 * 1024
MAX_DEPTH = 16

TOP_LEVEL = "a mapping of keys such as name, model, profile, slo, objective; setpoint init writes one"


def parse_document(text: str, problems: Problems) -> yaml.MappingNode:
    """The top mapping of the only document in ``text``. Raises ``RequirementError``."""
    if len(text) > MAX_CHARS:
        problems.add(0, (), f"{len(text)} characters", f"at most {MAX_CHARS}; a requirement is a page of YAML")
        problems.raise_if_any()
    try:
        _check_events(text, problems)
        problems.raise_if_any()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = _line_of(error.problem_mark or error.context_mark)
        found = printable(f"a YAML error ({error.problem or error.context})")
        problems.add(line, (), found, _syntax_hint(text, line))
    except yaml.YAMLError as error:
        problems.add(*_reader_error(text, error))
    except (ValueError, OverflowError) as error:  # an escape such as "\U7fffffff" is no character
        problems.add(0, (), f"a YAML error ({printable(str(error))})", "well-formed YAML")
    else:
        if isinstance(node, yaml.MappingNode):
            return node
        if node is None or (isinstance(node, yaml.ScalarNode) and not node.value):
            problems.add(1, (), "an empty file", TOP_LEVEL)
        else:
            problems.add(node.start_mark.line + 1, (), describe(node), TOP_LEVEL)
    problems.raise_if_any()
    raise AssertionError("unreachable: every path above returned or noted a problem")


def describe(node: yaml.Node) -> str:
    """What a node is, in the words of a message."""
    if isinstance(node, yaml.ScalarNode):
        return "nothing" if is_null(node) else quoted(node.value)
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"


def is_null(node: yaml.Node) -> bool:
    """Whether the node is an empty value or ``null``: the same as not writing the key."""
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _check_events(text: str, problems: Problems) -> None:
    """Notes what is not allowed in a requirement, without building anything."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = _line_of(event.start_mark)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                problems.add(line, (), "a second document (---)", "one requirement in a file")
                return
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                problems.add(line, (), f"nesting deeper than {MAX_DEPTH}", "the few levels that a requirement has")
                return
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            found = "an anchor or alias (&name, *name)"
            problems.add(line, (), found, 'the value itself; quote text that begins with "&" or "*"')
            return
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
            problems.add(line, (), f"the tag {quoted(event.tag)}", 'no tags; quote text that begins with "!"')
            return


def _line_of(mark: Any) -> int:
    """Line from 1 of one of PyYAML's marks, 0 where there is none."""
    return 0 if mark is None else int(mark.line) + 1


def _syntax_hint(text: str, line: int) -> str:
    lines = text.splitlines()
    if 0 < line <= len(lines) and "\t" in lines[line - 1]:
        return "well-formed YAML, indented with spaces; this line has a tab"
    return "well-formed YAML: key, colon, space, value; two spaces for each level; quotes around text with : or #"


def _reader_error(text: str, error: yaml.YAMLError) -> tuple[int, tuple[str, ...], str, str]:
    position = getattr(error, "position", None)
    if isinstance(position, int):
        char = text[position : position + 1]
        return text.count("\n", 0, position) + 1, (), f"the character {char!a}", "printable text"
    return 0, (), f"a YAML error ({printable(str(error))})", "well-formed YAML"
