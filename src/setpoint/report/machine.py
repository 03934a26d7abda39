"""Facts about this machine that a reader of a report needs to place its figures."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from setpoint import __version__
from setpoint.record.processor import CPU_FEATURES, cpu_features, processor_name


def machine_facts() -> dict[str, Any]:
    """Processor, cores, memory, system and versions; ``None`` where this machine does not say. Imports no engine.

    ``cpu_features`` are those of ``cpu_features_sought`` that the processor has, ``cores_usable`` the logical cores this
    process may run on (its affinity), ``cpu_quota`` the cores its control group may use on average, and ``memory_bytes`` what
    the machine has.
    """
    return {
        "cpu": processor_name(),
        "cpu_features": cpu_features(),
        "cpu_features_sought": list(CPU_FEATURES),
        "architecture": platform.machine(),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_logical": psutil.cpu_count(logical=True),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count(),
        "cpu_quota": _cpu_quota(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": platform.platform(),
        "python": platform.python_version(),
        "setpoint": __version__,
        "openvino": _installed("openvino"),
    }


def _cpu_quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """Cores' worth of time that the control group grants (cgroup v2), ``None`` where there is no limit."""
    try:
        quota, period = path.read_text(encoding="utf-8").split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
