"""A user's own accelerators and models, checked before they are kept."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from setpoint.hardware.accelerator import accelerator_from
from setpoint.hardware.errors import HardwareError
from setpoint.hardware.model_catalogue import config_fields, plain_name
from setpoint.hardware.model_config import facts_from_config
from setpoint.hardware.user_data import user_folder


def add_accelerator(file: Path) -> Path:
    """Keep the accelerator that ``file`` describes and return where. Raises ``HardwareError`` and ``OSError``."""
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise HardwareError(f"{file}: cannot be read as YAML: {str(error).splitlines()[0]}") from error
    device = accelerator_from(document, where=str(file))
    return _kept("accelerators", f"{device.name}.yaml", yaml.safe_dump(document, sort_keys=False))


def add_model(file: Path, name: str | None) -> Path:
    """Keep the ``config.json`` at ``file`` under ``name`` and return where. Raises ``HardwareError`` and ``OSError``."""
    config = config_fields(file)
    called = plain_name(str(name or config.get("name") or config.get("_name_or_path") or file.resolve().parent.name))
    facts_from_config(config, name=called, where=str(file))
    return _kept("models", f"{called}.json", json.dumps({**config, "name": called}, indent=1) + "\n")


def _kept(folder: str, name: str, text: str) -> Path:
    target = user_folder() / folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return target
