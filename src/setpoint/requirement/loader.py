"""Reads a requirement from a YAML file.

Whatever the file holds, the outcome is a ``Requirement`` or a ``RequirementError`` whose message has one line for each
problem: file, line, field, what was found, what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from setpoint.requirement.document import MAX_CHARS, parse_document
from setpoint.requirement.examples import example_names
from setpoint.requirement.problems import Problem, Problems, RequirementError
from setpoint.requirement.profile_reader import read_profile
from setpoint.requirement.reading import Value
from setpoint.requirement.slos_reader import read_slos
from setpoint.requirement.speculation import read_speculation
from setpoint.requirement.types import ModelSource, Objective, Price, Requirement
from setpoint.requirement.units import PRICES, parse_usd_per_hour
from setpoint.requirement.wishes_reader import read_wishes

MODELS = "a model: smollm2-135m, a GGUF file, an OpenVINO IR folder or a Hugging Face repository"


def load_requirement(path: Path) -> Requirement:
    """The requirement in the file at ``path``. Raises ``RequirementError``, also for a file that cannot be read."""
    return parse_requirement(_read_text(path), str(path))


def parse_requirement(text: str, file_name: str) -> Requirement:
    """The requirement in ``text``; ``file_name`` is only for messages. Raises ``RequirementError``."""
    problems = Problems(file_name)
    top = Value(parse_document(text, problems), (), problems)
    requirement = _read_requirement(top)
    problems.raise_if_any()
    if requirement is None:
        raise AssertionError("no requirement and no problem: a reader returned None without noting why")
    return requirement


def _read_requirement(top: Value) -> Requirement | None:
    readers: dict[str, Callable[[Value], Any]] = {
        "name": lambda value: value.text("a short name"),
        "description": lambda value: value.text("a sentence"),
        "model": _read_model,
        "profile": read_profile,
        "slo": read_slos,
        "slo_burst": read_slos,
        "objective": lambda value: value.one_of(objective.value for objective in Objective),
        "price": _read_price,
        "plan": read_wishes,
        "speculation": read_speculation,
    }
    return top.build(Requirement, top.read(readers, required=("name", "profile")))


def _read_model(value: Value) -> ModelSource | None:
    if value.is_scalar:
        return value.build(ModelSource, {"source": value.text(MODELS)}, {"source": ""})
    readers: dict[str, Callable[[Value], Any]] = {
        "source": lambda entry: entry.text(MODELS),
        "revision": lambda entry: entry.text("a branch, tag or commit"),
        "served_name": lambda entry: entry.text("the name that clients ask for"),
    }
    return value.build(ModelSource, value.read(readers, required=("source",)))


def _read_price(value: Value) -> Price | None:
    if value.is_scalar:
        found = {"usd_per_hour": value.scalar(parse_usd_per_hour, PRICES)}
        return value.build(Price, found, {"usd_per_hour": ""})
    readers = {"usd_per_hour": lambda entry: entry.scalar(parse_usd_per_hour, PRICES)}
    return value.build(Price, value.read(readers, required=("usd_per_hour",)))


def _read_text(path: Path) -> str:
    """The text of the file, at most a little more than a requirement may have."""
    try:
        if path.is_dir():
            raise _unreadable(path, "a directory", "a YAML file")
        with path.open("rb") as file:
            data = file.read(4 * MAX_CHARS + 4)
    except FileNotFoundError:
        shipped = ", ".join(example_names())
        raise _unreadable(
            path, "no such file", f"a YAML file; setpoint init writes one, and the shipped examples are {shipped}"
        ) from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
        raise _unreadable(path, f"a file that cannot be read ({reason})", "a readable YAML file") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(data) > 4 * MAX_CHARS:
            raise _unreadable(path, "a very large file", f"at most {MAX_CHARS} characters") from None
        line = data.count(b"\n", 0, error.start) + 1
        found = f"a byte that is not UTF-8 (0x{data[error.start]:02x})"
        raise RequirementError(str(path), (Problem(line, "", found, "a text file saved as UTF-8"),)) from None


def _unreadable(path: Path, found: str, allowed: str) -> RequirementError:
    return RequirementError(str(path), (Problem(0, "", found, allowed),))
