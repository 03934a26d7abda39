"""Reading one YAML node: the keys of a mapping, a scalar in human units, and the part of a requirement made from them.

A reader notes problems and goes on, so that the user sees all of them at once. ``None`` stands for "absent or wrong".
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from setpoint.requirement.document import describe, is_null
from setpoint.requirement.part import Part
from setpoint.requirement.problems import Problems, printable
from setpoint.requirement.units import UnitError

T = TypeVar("T")
PartT = TypeVar("PartT", bound=Part)

_UNITS = {"_s": " s", "_rps": "/s"}


@dataclass(frozen=True, slots=True)
class Value:
    """A node of the file, the keys that lead to it, and the place where its problems go."""

    node: yaml.Node
    path: tuple[str, ...]
    problems: Problems

    @property
    def line(self) -> int:
        """Line of the file, from 1."""
        return int(self.node.start_mark.line) + 1

    @property
    def is_mapping(self) -> bool:
        """Whether this is a mapping of keys."""
        return isinstance(self.node, yaml.MappingNode)

    @property
    def is_scalar(self) -> bool:
        """Whether this is a single value."""
        return isinstance(self.node, yaml.ScalarNode)

    def fault(self, allowed: str, found: str | None = None) -> None:
        """Notes that this value is not one of ``allowed``."""
        self.problems.add(self.line, self.path, describe(self.node) if found is None else found, allowed)

    def scalar(self, parse: Callable[[str], T], allowed: str) -> T | None:
        """The scalar as ``parse`` understands it. ``parse`` raises ``UnitError`` with what is allowed."""
        if not isinstance(self.node, yaml.ScalarNode) or is_null(self.node):
            self.fault(allowed)
            return None
        try:
            return parse(self.node.value)
        except UnitError as error:
            self.fault(str(error))
            return None

    def text(self, allowed: str) -> str | None:
        """The scalar as text, whatever YAML would have made of it."""
        return self.scalar(str, allowed)

    def one_of(self, words: Iterable[str]) -> str | None:
        """The scalar as one of ``words``."""
        choices = tuple(words)

        def parse(text: str) -> str:
            if text not in choices:
                raise UnitError(", ".join(choices) + did_you_mean(text, choices))
            return text

        return self.scalar(parse, ", ".join(choices))

    def items(self, parse: Callable[[str], T], allowed: str) -> tuple[T, ...] | None:
        """The scalars of a list as ``parse`` understands them."""
        entries = [entry.scalar(parse, allowed) for entry in self.entries(allowed)]
        good = tuple(entry for entry in entries if entry is not None)
        return good if len(good) == len(entries) > 0 else None

    def entries(self, allowed: str) -> tuple[Value, ...]:
        """The entries of a list, whatever they are; nothing, after noting it, if this is no list with an entry."""
        if not isinstance(self.node, yaml.SequenceNode) or not self.node.value:
            self.fault(f"a list with at least one entry, each {allowed}")
            return ()
        return tuple(Value(node, (*self.path, str(index)), self.problems) for index, node in enumerate(self.node.value))

    def mapping(self, shape: str) -> dict[str, Value] | None:
        """The values by key. Notes a duplicate key and a key that is not text; empty values are left out."""
        if not isinstance(self.node, yaml.MappingNode):
            self.fault(shape)
            return None
        values: dict[str, Value] = {}
        lines: dict[str, int] = {}
        for key_node, node in self.node.value:
            line = int(key_node.start_mark.line) + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.add(line, self.path, f"{describe(key_node)} as a key", "keys that are plain words")
                continue
            key = str(key_node.value)
            if key in lines:
                found = f"the key a second time (first on line {lines[key]})"
                self.problems.add(line, (*self.path, key), found, "every key once")
                continue
            lines[key] = line
            values[key] = Value(node, (*self.path, key), self.problems)
        return values

    def fields(self, allowed: Iterable[str], required: Iterable[str] = ()) -> dict[str, Value]:
        """The values by key, where only ``allowed`` keys may be and all ``required`` keys must be.

        Notes unknown keys (with the likely one) and missing keys. A key without a value counts as not written. Returns
        what there is of the allowed keys, nothing if this is not a mapping.
        """
        names = tuple(allowed)
        values = self.mapping(f"a mapping with keys from {', '.join(names)}")
        if values is None:
            return {}
        suspected: set[str] = set()
        for key in [key for key in values if key not in names]:
            unknown = values.pop(key)
            suspected.update(close_words(key, names))
            unknown.fault(", ".join(names) + did_you_mean(key, names), found="this key")
        values = {key: value for key, value in values.items() if not is_null(value.node)}
        for name in required:
            if name not in values and name not in suspected:
                self.note((name,), f"this key is required, for example {_EXAMPLES.get(name, name + ': ...')}")
        return values

    def read(self, readers: Mapping[str, Callable[[Value], Any]], required: Iterable[str] = ()) -> dict[str, Any] | None:
        """What the reader of each key makes of its value, ``None`` if this is not a mapping; see ``fields``."""
        fields = self.fields(readers, required)
        return {key: readers[key](value) for key, value in fields.items()} if self.is_mapping else None

    def build(
        self, part: type[PartT], fields: Mapping[str, Any] | None, yaml_names: Mapping[str, str] | None = None
    ) -> PartT | None:
        """The part made from ``fields``; what its own rules refuse is noted at the line of the field.

        ``None`` without a note if a field is ``None`` or missing: the reader of that field has noted why.
        yaml_names: how a field is spelt in the file where that differs from the attribute; empty: this very value.
        """
        if fields is None or any(field is None for field in fields.values()):
            return None
        try:
            return part(**fields)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                faults = detail.get("ctx", {}).get("faults", ())
                for fault in faults:
                    self.note(fault.path, fault.allowed)
                if not faults and detail["type"] != "missing":
                    attribute = str(detail["loc"][0])
                    name = (yaml_names or {}).get(attribute, attribute)
                    path = tuple(str(key) for key in (name, *detail["loc"][1:]) if key != "")
                    self.note(path, _constraint(attribute, detail))
            return None

    def note(self, path: tuple[str, ...], allowed: str) -> None:
        """Notes that what is at ``path`` below this value, if anything, is not ``allowed``."""
        node, depth = self.node, 0
        for key in path:
            child = _child(node, key)
            if child is None:
                break
            node, depth = child, depth + 1
        found = describe(node) if depth == len(path) else "nothing"
        self.problems.add(int(node.start_mark.line) + 1, (*self.path, *path), found, allowed)


def close_words(word: str, words: Iterable[str]) -> list[str]:
    """The word that was probably meant, or nothing."""
    return difflib.get_close_matches(word[:40].lower(), list(words), n=1, cutoff=0.6)


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """``; did you mean profile?`` or nothing."""
    close = close_words(word, words)
    return f"; did you mean {close[0]}?" if close else ""


def _child(node: yaml.Node, key: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value == key:
                return value_node  # type: ignore[no-any-return]
    if isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
        return node.value[int(key)]  # type: ignore[no-any-return]
    return None


_EXAMPLES = {
    "name": "name: my-application",
    "profile": "profile: with prompt_tokens, output_tokens and arrival in it",
    "prompt_tokens": "prompt_tokens: 128",
    "output_tokens": "output_tokens: 64",
    "arrival": "arrival: {process: poisson, rate: 2.5/s}",
    "rate": "rate: 2.5/s",
    "duration": "duration: 10s",
    "turns": "turns: {min: 2, max: 6}",
    "steps": "steps: [{rate: 2/s, duration: 30s}, {rate: 4/s, duration: 30s}]",
    "weight": "weight: 3",
    "source": "source: smollm2-135m",
    "drafters": "drafters: [prompt-lookup]",
    "usd_per_hour": "usd_per_hour: 0.10",
    "median": "median: 120",
    "p95": "p95: 400",
    "min": "min: 10",
    "max": "max: 800",
    "values": "values: [1, 2, 4]",
}


def _constraint(name: str, detail: ErrorDetails) -> str:
    """A constraint of one field in words."""
    context = detail.get("ctx", {})
    unit = next((word for suffix, word in _UNITS.items() if name.endswith(suffix)), "")
    words = {
        "greater_than": "more than {gt}",
        "greater_than_equal": "at least {ge}",
        "less_than": "less than {lt}",
        "less_than_equal": "at most {le}",
        "string_too_short": "at least {min_length} character",
        "string_too_long": "at most {max_length} characters",
        "finite_number": "a finite number",
    }.get(detail["type"])
    if words is None:
        return printable(detail["msg"])
    numbers = {key: f"{value:g}" if isinstance(value, float | int) else value for key, value in context.items()}
    return words.format(**numbers) + (unit if context else "")
