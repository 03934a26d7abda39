"""This machine as an accelerator: cores, memory, and what a short measurement says of its bandwidth and operations."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import psutil
import yaml

from setpoint.hardware.accelerator import CPU, THIS_MACHINE, Accelerator, accelerator_from
from setpoint.hardware.user_data import user_folder
from setpoint.record.processor import cpu_features, processor_name

MEASURED_FOR_S = 0.25
READ_BYTES = 1 << 28
SQUARE = 1024


def this_machine() -> Accelerator:
    """This machine, measured once (about a second) and remembered in ``<data folder>/this-machine.yaml``."""
    return remembered() or measure_this_machine()


def remembered() -> Accelerator | None:
    """What was measured before on this very machine, if anything was. Raises ``HardwareError`` for a file that is broken."""
    file = remembered_file()
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(document, dict) or document.get("machine") != fingerprint():
        return None
    return accelerator_from(document, where=str(file))


def remembered_file() -> Path:
    """Where the measurement is kept."""
    return user_folder() / "this-machine.yaml"


def fingerprint() -> str:
    """What makes a remembered measurement another machine's: processor, usable cores, memory, and the instructions it has.

    Virtual machines of one name may have AVX-512 or not, and steps take other times then.
    """
    memory_gib = psutil.virtual_memory().total >> 30
    return fingerprint_words(platform.machine(), processor_name(), usable_cores(), memory_gib, cpu_features())


def fingerprint_words(architecture: str, cpu: str, cores: int | str, memory_gib: int, features: Sequence[str]) -> str:
    """``x86_64 AMD EPYC 2 cores 23 GiB with avx2 avx512f``."""
    words = f"{architecture} {cpu} {cores} cores {memory_gib} GiB"
    return f"{words} with {' '.join(features)}" if features else words


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure_this_machine() -> Accelerator:
    """Measure bandwidth (reading 256 MiB) and operations (a product of f32 matrices), and remember both.

    bf16 is taken at twice the f32 rate where the processor has instructions for it, else at the same. Power and price are not
    known; the price is 0 (``--price this-machine=...`` sets it).
    """
    f32 = _matrix_flops_per_s()
    features = set(cpu_features())
    wide = 2.0 if {"amx_bf16", "avx512_bf16", "bf16"} & features else 1.0
    tflops = {"bf16": round(f32 * wide / 1e12, 4), "int8": round(f32 * (4.0 if _has_int8(features) else 2.0) / 1e12, 4)}
    document = {
        "name": THIS_MACHINE,
        "kind": CPU,
        "machine": fingerprint(),
        "dense_tflops": tflops,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 2),
        "memory_tb_per_s": round(_read_bytes_per_s() / 1e12, 5),
        "link_gb_per_s": 0,
        "power_w": 0,
        "price_usd_per_h": 0,
        "price_date": date.today().isoformat(),
        "price_source": "none: your own machine",
        "spec_source": f"measured on {processor_name()}, {usable_cores()} cores",
    }
    file = remembered_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    except OSError:  # A machine whose disk cannot be written is measured each time.
        return accelerator_from(document, where=str(file))
    return accelerator_from(document, where=str(file))


def _has_int8(features: set[str]) -> bool:
    return bool({"avx512_vnni", "avx_vnni", "amx_int8", "i8mm"} & features)


def _read_bytes_per_s() -> float:
    """Best of several sums over an array that no cache holds, on as many threads as there are cores."""
    from concurrent.futures import ThreadPoolExecutor

    values = np.ones(READ_BYTES // 8)
    pieces = np.array_split(values, usable_cores())
    with ThreadPoolExecutor(usable_cores()) as pool:
        return READ_BYTES / _best_s(lambda: list(pool.map(np.sum, pieces)))


def _matrix_flops_per_s() -> float:
    square = np.ones((SQUARE, SQUARE), dtype=np.float32)
    out = np.empty_like(square)
    return 2.0 * SQUARE**3 / _best_s(lambda: np.matmul(square, square, out=out))


def _best_s(work: object) -> float:
    """Least seconds of several goes at ``work`` within ``MEASURED_FOR_S``, two at least."""
    assert callable(work)
    work()
    best, started, rounds = float("inf"), time.perf_counter(), 0
    while rounds < 2 or time.perf_counter() - started < MEASURED_FOR_S:
        begun = time.perf_counter()
        work()
        best, rounds = min(best, time.perf_counter() - begun), rounds + 1
    return max(best, 1e-9)
