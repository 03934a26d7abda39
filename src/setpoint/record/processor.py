"""This machine's processor, as Linux lists it."""

from __future__ import annotations

import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
CPU_FEATURES = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "sve",
    "bf16",
    "i8mm",
)
"""What kernels are chosen by: with or without one of these, the same model takes other times on processors of one name."""

FIRST_CPU_FEATURES = tuple(name for name in CPU_FEATURES if name != "avx_vnni")
"""What was looked for when reports did not say yet what was."""


def cpu_info(path: Path = CPU_INFO) -> dict[str, str]:
    """The entries of the first processor that Linux lists; empty elsewhere."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {key.strip(): value.strip() for key, separator, value in pairs if separator}


def processor_name(path: Path = CPU_INFO) -> str:
    """As the kernel names it, else as Python does; where neither does (many ARM machines), the architecture.

    One name for reports and calibrations: a run is known again as this machine's by it.
    """
    return cpu_info(path).get("model name") or platform.processor() or platform.machine() or "unknown"


def cpu_features(path: Path = CPU_INFO) -> list[str]:
    """Which of ``CPU_FEATURES`` the processor has, in their order. One list for reports and calibrations, like the name."""
    info = cpu_info(path)
    flags = (info.get("flags") or info.get("Features") or "").split()
    return [name for name in CPU_FEATURES if name in flags]
