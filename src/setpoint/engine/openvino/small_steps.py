"""Kernels of their own for small steps, where the processor's tiles are too large for them (docs/decisions/0096).

With AMX the CPU device computes in bf16 tiles of 16 rows, and unpacks quantised weights for them in every step; without, it
multiplies 8-bit numbers (activations quantised in groups, as on every other processor). Tiles are ahead from some dozens of
tokens a step on, and behind below. So the model is compiled twice there, over one KV cache, and each step takes what is
faster for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import psutil

from setpoint.record.processor import cpu_features

SMALL_STEP_TOKENS: Final = 40
"""The most tokens of a step that small kernels take: where both took as long, on two cores."""

EIGHT_BIT: Final[dict[str, Any]] = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 32}
"""What makes the CPU device multiply 8-bit numbers beside quantised weights in spite of tiles."""

MOST_OF_MEMORY: Final = 1 / 8
"""Weights are kept twice only if they are at most this share of the memory that is free."""


def pays(weights: Path, *, device: str, precision: str | None) -> bool:
    """Whether small steps would gain, and the memory is there for it: on a CPU with AMX, at the device's own precision."""
    if not device.startswith("CPU") or precision is not None or "amx_bf16" not in cpu_features():
        return False
    return weights.stat().st_size <= MOST_OF_MEMORY * psutil.virtual_memory().available
