"""Models by name: the bundled catalogue (``data/models``), the user's own (``<data folder>/models``), or a path.

A catalogue file is the part of a model's ``config.json`` that says its shape, with ``name``, ``aliases`` and ``source``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from setpoint.hardware.errors import HardwareError
from setpoint.hardware.model_config import facts_from_config
from setpoint.hardware.model_facts import PRECISION_NAMES, ModelFacts, UnknownModel
from setpoint.hardware.user_data import user_folder

MOST_FILES = 1024
NAMED_PRECISIONS = {"fp8", "nvfp4", "fp4", "mxfp4", "int4", "int8", "awq", "gptq", "w4a16", "w8a8", "bf16", "fp16"}
# Words of a name that do not change its architecture.
VARIANT = re.compile(
    r"[-_](instruct|chat|it|hf|base|thinking|reasoning|fp8|fp8-dynamic|fp8-kv|nvfp4|fp4|mxfp4|int4|int8|awq|gptq|w4a16|w8a8|quantized\..*|bf16|fp16"
    r"|gguf|q\d.*|turbo|v\d+(\.\d+)?|\d{4})$"
)


def find_model(name_or_path: str) -> ModelFacts:
    """See ``model_facts``."""
    path = Path(name_or_path).expanduser()
    if path.is_dir() and (path / "config.json").is_file():
        path = path / "config.json"
    if path.is_file():
        return _from_file(path)
    wanted = plain_name(name_or_path)
    known = _known()
    for spelling in _shortened(wanted):
        if spelling in known:
            named = _precision_in(wanted.removeprefix(spelling))
            return replace(known[spelling], native_precision=named) if named else known[spelling]
    close = get_close_matches(wanted, list(known), n=3, cutoff=0.5)
    near = sorted({known[each].name for each in close}) or ["llama-3.1-8b", "qwen3-32b", "deepseek-v3"]
    raise UnknownModel(
        f"model {name_or_path!r} is not known: {'did you mean' if close else 'name one such as'} {', '.join(near)},"
        " or give the path of its config.json or GGUF file"
    )


def _precision_in(ending: str) -> str | None:
    """The precision that the end of a checkpoint's name tells, if any: ``-instruct-fp8``."""
    words = re.split(r"[-_.]", ending)
    return next((PRECISION_NAMES.get(word, word) for word in words if word in NAMED_PRECISIONS), None)


def models() -> tuple[ModelFacts, ...]:
    """Every model that has a name, in the order of names."""
    return tuple(sorted(set(_known().values()), key=lambda each: each.name))


def plain_name(name: str) -> str:
    """A name as its files are called: no owner, lower case, ``-`` for what separates."""
    return re.sub(r"[\s_]+", "-", name.strip().rstrip("/").split("/")[-1].lower())


def _shortened(name: str) -> Iterator[str]:
    for _ in range(8):
        yield name
        yield name.removeprefix("meta-")
        shorter = VARIANT.sub("", name)
        if shorter == name:
            return
        name = shorter


def _known() -> dict[str, ModelFacts]:
    return {**_bundled(), **_own()}


@cache
def _bundled() -> dict[str, ModelFacts]:
    folder = resources.files("setpoint.hardware").joinpath("data", "models")
    return dict(pair for file in folder.iterdir() if file.name.endswith(".json") for pair in _names(file))


def _own() -> dict[str, ModelFacts]:
    folder = user_folder() / "models"
    if not folder.is_dir():
        return {}
    return dict(pair for file in sorted(folder.glob("*.json"))[:MOST_FILES] for pair in _names(file))


def _names(file: Traversable) -> Iterator[tuple[str, ModelFacts]]:
    config = config_fields(file)
    facts = facts_from_config(config, name=str(config.get("name") or file.name.removesuffix(".json")), where=str(file))
    for spelling in (facts.name, *(str(each) for each in config.get("aliases") or ())):
        yield plain_name(spelling), facts


def _from_file(path: Path) -> ModelFacts:
    if path.suffix.lower() == ".gguf":
        from setpoint.hardware.gguf_header import facts_from_gguf

        return facts_from_gguf(path)
    config = config_fields(path)
    name = str(config.get("name") or config.get("_name_or_path") or path.resolve().parent.name)
    return facts_from_config(config, name=name, where=str(path))


def config_fields(file: Traversable) -> Mapping[str, Any]:
    """The fields of the ``config.json`` at ``file``. Raises ``HardwareError``."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HardwareError(f"{file}: cannot be read as JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict):
        raise HardwareError(f"{file}: expected the fields of a config.json, found {type(config).__name__}")
    return config
