"""Groups of options that commands share, spread out for Typer and put together again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints

EXIT_CODES = "Exit codes: 0 met, 1 missed, 2 bad input, 3 inconclusive, 4 invalid run."


def with_groups(command: Callable[..., int], panels: Sequence[str] = ()) -> Callable[..., int]:
    """``command`` with each parameter that is a dataclass spread out: its fields become options of the command line.

    A field is annotated as an option of Typer's is, and has a default. The command is called with the groups put
    together again, so that a group can be handed on as it is. ``panels``: the order in which help shows them.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint) and name != "return"
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _parameters(groups[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))

    parameters.sort(key=lambda parameter: _place(parameter, panels))

    def called(**values: Any) -> int:
        made = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)}) for name, group in groups.items()
        }
        return command(**values, **made)

    called.__name__, called.__doc__, called.__module__ = command.__name__, command.__doc__, command.__module__
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called


def _place(parameter: inspect.Parameter, panels: Sequence[str]) -> int:
    """Where the panel of an option stands; what has none comes first."""
    options = getattr(parameter.annotation, "__metadata__", ())
    panel = next((option.rich_help_panel for option in options), None)
    return panels.index(panel) if panel in panels else -1


def _parameters(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    found = []
    for field in fields(group):
        assert field.default is not MISSING, f"{group.__name__}.{field.name}: an option has a default"
        found.append(
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
        )
    return found
