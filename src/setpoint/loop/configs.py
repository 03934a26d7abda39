"""Serving configurations from where people keep them: a run folder, a JSON file, JSON text."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.report.files import REPORT_FILE, read_report
from setpoint.requirement import Requirement, RequirementError


def default_config(requirement: Requirement) -> ServingConfig:
    """What to serve a requirement with before anything was measured: deadlines decide if there are any."""
    if requirement.slo.latency or requirement.slo.spread:
        return ServingConfig(mode=BatchingMode.SETPOINT, max_running=16)
    return ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=64, token_budget=2048)


class ConfigError(RequirementError):
    """The configuration cannot be read; the message says where it came from and what is wrong."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)


def read_config(source: str) -> ServingConfig:
    """``source``: JSON text, a JSON file, or a run folder (the configuration that was chosen). Raises ``ConfigError``."""
    if source.lstrip().startswith("{"):
        return _parse(source, "--config")
    path = Path(source)
    if path.is_dir():
        return _chosen(path)
    if path.is_file():
        return _parse(path.read_text(encoding="utf-8"), str(path))
    raise ConfigError(f"--config {source}: neither a run folder, a JSON file nor JSON text")


def _chosen(folder: Path) -> ServingConfig:
    report = read_report(folder / REPORT_FILE)
    chosen = next((each for each in report.candidates if each.name == report.chosen), None)
    if chosen is None:
        raise ConfigError(f"{folder}: no configuration met the requirement in this run; name one with --mode and its options")
    return _parse(json.dumps(chosen.config), str(folder))


def _parse(text: str, where: str) -> ServingConfig:
    try:
        return ServingConfig.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"])) or "the whole"
        raise ConfigError(f"{where}: {field}: {problem['msg']}, found {problem['input']!r}") from error
