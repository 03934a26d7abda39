"""The requirements that ship with setpoint: one YAML file for each kind of application."""

from __future__ import annotations

from importlib.resources import files

_SUFFIX = ".yaml"


def example_names() -> list[str]:
    """Names of the shipped examples, in alphabetical order."""
    folder = files("setpoint") / "examples"
    return sorted(entry.name.removesuffix(_SUFFIX) for entry in folder.iterdir() if entry.name.endswith(_SUFFIX))


def example_text(name: str) -> str:
    """The YAML text of the example called ``name``. Raises ``KeyError`` whose text lists the names there are."""
    names = example_names()
    if name not in names:
        raise KeyError(f"there is no example {name!r}; there are {', '.join(names)}")
    return (files("setpoint") / "examples" / f"{name}{_SUFFIX}").read_text(encoding="utf-8")
