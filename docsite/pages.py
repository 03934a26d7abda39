"""Pages of the docs site that are written from the code: commands, schemas, policies, examples. Text in, Markdown out."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import typer.main
from pydantic import BaseModel

from setpoint.cli import app
from setpoint.record import Report
from setpoint.requirement import Requirement, example_names, example_text

ROOT = Path(__file__).resolve().parents[1]
POLICY = ROOT / "src" / "setpoint" / "policy"
DOUBLE_QUOTED = re.compile(r"``([^`]+)``")


def generated_pages() -> dict[str, str]:
    """Every page by its place under ``docs/``."""
    return {
        "reference/commands.md": commands_page(),
        "reference/requirement-fields.md": models_page(
            Requirement,
            "Fields of a requirement",
            "What a requirement becomes when it is read; durations are seconds, rates a second. How to write one is in"
            " [Requirement](../requirement.md).",
        ),
        "reference/report-fields.md": models_page(
            Report,
            "Fields of report.json",
            "One schema for tune, measure, simulate and plan. Seconds, tokens, requests and US dollars throughout; `null` where"
            " something is not known.",
        ),
        "reference/policy-modules.md": policies_page(),
        "reference/examples.md": examples_page(),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    }


def commands_page() -> str:
    """Every command with its options, as ``--help`` has them."""
    group: Any = typer.main.get_command(app)
    parts = ["# Commands", f"{group.help}\n\nWritten from the same text as `setpoint --help`. {group.epilog or ''}"]
    for words, command in commands(group):
        parts.append(f"## {' '.join(words)}")
        parts += _command(words, command)
    return "\n\n".join(parts) + "\n"


def commands(group: Any, words: tuple[str, ...] = ("setpoint",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below ``group``, a group before what is in it, by name."""
    for name in sorted(group.commands):
        command = group.commands[name]
        yield (*words, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))


def models_page(model: type[BaseModel], title: str, lead: str) -> str:
    """``model`` and every model that its fields are of: one table each."""
    parts = [f"# {title}", lead]
    for each in _reachable(model):
        parts.append(f"## {each.__name__}")
        if each.__doc__ and each.__doc__ != BaseModel.__doc__:
            parts.append(_prose(each.__doc__))
        rows = [f"| `{field.alias or name}` | {_type(field.annotation)} | {_default(field)} |" for name, field in _fields(each)]
        parts.append("\n".join(["| field | type | default |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def policies_page() -> str:
    """The modules of ``policy/``: head, and each public class and function with its contract."""
    parts = ["# Policy modules", "From the docstrings. What the rules are, and when each is wrong: [Policies](../policies.md)."]
    for file in sorted(POLICY.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        head = ast.get_docstring(tree)
        if head is None or file.name == "__init__.py":
            continue
        parts += [f"## {file.stem}", _prose(head)]
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                parts += _definition(node)
    return "\n\n".join(parts) + "\n"


def examples_page() -> str:
    """The shipped requirements as they are."""
    parts = ["# Shipped requirements", "They travel with the package: `setpoint init my.yaml --example NAME` writes one."]
    for name in example_names():
        parts += [f"## {name}", f"```yaml\n{example_text(name).rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _command(words: tuple[str, ...], command: Any) -> Iterator[str]:
    arguments = [_named(each) for each in _of(command, "argument")]
    usage = " ".join([*words, "[OPTIONS]", *arguments, *(["COMMAND"] if hasattr(command, "commands") else [])])
    yield f"```text\n{usage}\n```"
    if command.help:
        yield inspect.cleandoc(command.help)
    shown = [f"| `{_cell(each.metavar or each.name.upper())}` | {_cell(each.help)} |" for each in _of(command, "argument")]
    for each in _of(command, "option"):
        if "--help" not in each.opts and not each.hidden:
            names = ", ".join(f"`{name}`" for name in (*each.opts, *each.secondary_opts))
            value = "" if each.is_flag else f" `{_cell(each.metavar or each.name.upper())}`"
            shown.append(f"| {names}{value} | {_cell(each.help)}{_given(each)} |")
    if shown:
        yield "\n".join(["| option | what it does |", "| --- | --- |", *shown])
    if command.epilog:
        yield inspect.cleandoc(command.epilog)


def _of(command: Any, kind: str) -> list[Any]:
    return [each for each in command.params if each.param_type_name == kind]


def _named(argument: Any) -> str:
    """As usage names an argument."""
    name = argument.metavar or argument.name.upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _given(option: Any) -> str:
    default = option.default
    if default is None or callable(default) or option.is_flag or default == [] or "default" in (option.help or "").lower():
        return ""
    return f" Default: `{default}`."


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _reachable(model: type[BaseModel]) -> list[type[BaseModel]]:
    found = [model]
    for each in found:
        for _, field in _fields(each):
            found += [other for other in _models(field.annotation) if other not in found]
    return found


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _fields(model: type[BaseModel]) -> list[tuple[str, Any]]:
    return list(model.model_fields.items())


def _type(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join("`null`" if part is NoneType else _type(part) for part in parts)
    if origin in (list, tuple) and parts:
        return f"list of {_type(parts[0])}"
    if origin is None and isinstance(annotation, type):
        members = getattr(annotation, "__members__", None)
        if isinstance(members, Mapping):
            return ", ".join(f"`{each.value}`" for each in members.values())
        return f"`{annotation.__name__}`"
    if parts and all(isinstance(part, str | int) for part in parts):
        return ", ".join(f"`{part}`" for part in parts)
    return _type(parts[0]) if origin is not dict and parts else f"`{getattr(origin, '__name__', 'any')}`"


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "empty"
    value = field.default
    if isinstance(value, BaseModel):
        return "its defaults"
    return "`null`" if value is None else f"`{getattr(value, 'value', value)!s}`" if value != "" else "empty"


def _definition(node: ast.ClassDef | ast.FunctionDef) -> Iterator[str]:
    doc = ast.get_docstring(node)
    if doc is None:
        return
    if isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        yield f"### {node.name}\n\n```python\n{node.name}({ast.unparse(node.args)}){returns}\n```\n\n{_prose(doc)}"
        return
    methods = [
        f"- `{each.name}`: {_prose(text).splitlines()[0]}"
        for each in node.body
        if isinstance(each, ast.FunctionDef) and not each.name.startswith("_") and (text := ast.get_docstring(each))
    ]
    yield "\n\n".join([f"### {node.name}", _prose(doc), *(["\n".join(methods)] if methods else [])])


def _prose(doc: str) -> str:
    """A docstring as Markdown: two backquotes are one, and what would be read as HTML or a link is not."""
    return DOUBLE_QUOTED.sub(r"`\1`", inspect.cleandoc(doc))
