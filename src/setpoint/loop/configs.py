"""Serving configurations from where people keep them: a run folder, a JSON file, JSON text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from setpoint.loop.errors import BadInput, first_problem
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.report.files import REPORT_FILE, read_report
from setpoint.requirement import Requirement

THROUGHPUT_CONFIG = ServingConfig(mode=BatchingMode.CONTINUOUS, max_running=64, token_budget=2048)
"""Without deadlines: large batches, whole prompts."""


def default_config(requirement: Requirement) -> ServingConfig:
    """What to serve a requirement with before anything was measured: deadlines decide if there are any."""
    if requirement.slo.latency or requirement.slo.spread:
        return ServingConfig(mode=BatchingMode.SETPOINT, max_running=16)
    return THROUGHPUT_CONFIG


class ConfigError(BadInput):
    """The configuration cannot be read; the message says where it came from and what is wrong."""


def read_config(source: str) -> ServingConfig:
    """``source``: JSON text, a JSON file, or a run folder (the configuration that was chosen). Raises ``ConfigError``."""
    if source.lstrip().startswith("{"):
        return _parse(source, "--config")
    path = Path(source)
    try:
        if path.is_dir():
            return _chosen(path)
        if path.is_file():
            return _parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {source}: cannot be read: {error}") from error
    raise ConfigError(f"--config {source}: neither a run folder, a JSON file nor JSON text")


def _chosen(folder: Path) -> ServingConfig:
    report = read_report(folder / REPORT_FILE)
    chosen = next((each for each in report.candidates if each.name == report.chosen), None)
    if chosen is None:
        raise ConfigError(
            f"{folder}: no configuration met the requirement in this run; leave out --config, or give one as JSON, such as"
            """ '{"mode": "continuous", "max_running": 16}'"""
        )
    return _parse(json.dumps(chosen.config), str(folder))


def _parse(text: str, where: str) -> ServingConfig:
    try:
        return ServingConfig.model_validate_json(text)
    except ValidationError as error:
        field, problem = first_problem(error)
        raise ConfigError(f"{where}: {field or 'the whole'}: {problem}") from error


def changed(config: ServingConfig, changes: Mapping[str, Any]) -> ServingConfig:
    """``config`` with the options that were given (not ``None``) put in. Raises ``ConfigError`` naming the option."""
    given = {key: value for key, value in changes.items() if value is not None}
    try:
        return ServingConfig.model_validate(config.model_dump() | given)
    except ValidationError as error:
        field, problem = first_problem(error)
        raise ConfigError(f"--{field.replace('_', '-')}: {problem}") from error
