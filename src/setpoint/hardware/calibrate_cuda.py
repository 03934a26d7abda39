"""How far a CUDA GPU's plain kernels are from its datasheet, by a PyTorch micro-benchmark: ``calibrate --cuda``.

Measured: a matrix product (operations), a copy (bandwidth), attention of a prompt, attention of one token over a long cache,
and an empty launch. Engines' kernels are not PyTorch's, so it is not these multiples that are kept but how they differ from
``TYPICAL``, those of a GPU whose engines were measured; the difference moves the accelerator's effects under every engine.
Predictions stay ``transferred``: only engine runs make them ``measured``. Not run on a GPU yet.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import date
from math import log
from typing import Any

from setpoint.hardware.accelerator import Accelerator, UnknownAccelerator, accelerator
from setpoint.hardware.calibrations import SCHEMA, all_effects, errors_of
from setpoint.hardware.effects import Effects
from setpoint.hardware.errors import HardwareError

REPEATS = 20
SQUARE = 8192
COPY_BYTES = 1 << 31
HEADS, HEAD_DIM, PROMPT_TOKENS, BATCH, CACHE_TOKENS = 32, 128, 4096, 32, 4096
# Datasheet / achieved of the same kernels on an H100 SXM as published micro-benchmarks have it; a launch in seconds.
TYPICAL = {"compute": 1.4, "memory": 1.15, "attention": 1.8, "kv": 1.4, "layer_s": 4e-6}
# Multiples further off than this are a mistake of the measurement, not a GPU.
MOST_FACTOR = 4.0


def calibrate_cuda() -> dict[str, Any]:
    """The strongest calibration there is with this GPU's effects put in. Raises ``HardwareError`` without torch or GPU."""
    torch = _torch()
    name = str(torch.cuda.get_device_name(0))
    device = _known(name)
    multiples = measured_multiples(torch, device)
    # Not what an earlier run of this moved already.
    present = next((each for each in all_effects() if not each.name.startswith("cuda-")), None)
    factors = {level: dict(names) for level, names in present.effects.factors.items()} if present else {}
    moved = {key: log(min(max(value / TYPICAL[key], 1 / MOST_FACTOR), MOST_FACTOR)) for key, value in multiples.items()}
    own = dict(factors.get("accelerator", {}).get(device.name, {}))
    moved = {key: own.get(key, 0.0) + value for key, value in moved.items()}
    factors["accelerator"] = {**factors.get("accelerator", {}), device.name: {**own, **moved}}
    return {
        "schema": SCHEMA,
        "kind": "effects",
        "name": f"cuda-{device.name}",
        "note": f"micro-benchmark of {name}, {date.today().isoformat()}, over {present.name if present else 'prior means'}",
        **Effects(factors, present.effects.counts if present else {}).as_document(),
        "rows": sorted(present.rows) if present else [],
        **errors_of(present),
    }


def measured_multiples(torch: Any, device: Accelerator) -> dict[str, float]:
    """Datasheet / achieved by term, and seconds of a launch."""
    half = {"dtype": torch.bfloat16, "device": "cuda"}
    square = torch.randn(SQUARE, SQUARE, **half)
    flops = device.compute_flops_per_s("bf16")
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    prompt = torch.randn(1, HEADS, PROMPT_TOKENS, HEAD_DIM, **half)
    one = torch.randn(BATCH, HEADS, 1, HEAD_DIM, **half)
    cache = torch.randn(BATCH, HEADS, CACHE_TOKENS, HEAD_DIM, **half)
    attend = torch.nn.functional.scaled_dot_product_attention
    small = torch.zeros(1, device="cuda")
    product_s = _seconds(torch, lambda: square @ square)
    copy_s = _seconds(torch, lambda: target.copy_(source))
    prompt_s = _seconds(torch, lambda: attend(prompt, prompt, prompt, is_causal=True))
    cache_s = _seconds(torch, lambda: attend(one, cache, cache))
    launch_s = _seconds(torch, lambda: small.add_(1.0))
    read_bytes = 2.0 * BATCH * HEADS * CACHE_TOKENS * HEAD_DIM * 2
    return {
        "compute": product_s / (2.0 * SQUARE**3 / flops),
        "memory": copy_s / (2.0 * COPY_BYTES / device.memory_bytes_per_s),
        "attention": prompt_s / (2.0 * HEADS * HEAD_DIM * PROMPT_TOKENS**2 / flops),
        "kv": cache_s / (read_bytes / device.memory_bytes_per_s),
        "layer_s": launch_s,
    }


def _seconds(torch: Any, work: Callable[[], object]) -> float:
    """Mean seconds of one of ``REPEATS`` in a row, between two events on the GPU, after three unmeasured ones."""
    for _ in range(3):
        work()
    begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begun.record()
    for _ in range(REPEATS):
        work()
    ended.record()
    torch.cuda.synchronize()
    return float(begun.elapsed_time(ended)) / 1e3 / REPEATS


def _torch() -> Any:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise HardwareError("--cuda: PyTorch is not installed; install the build for your GPU from pytorch.org") from error
    if not torch.cuda.is_available():
        raise HardwareError("--cuda: PyTorch sees no CUDA GPU on this machine; leave --cuda out to measure the processor")
    return torch


def _known(name: str) -> Accelerator:
    """The catalogue's accelerator for what the driver calls ``name``, such as ``NVIDIA H100 80GB HBM3``."""
    words = name.lower().replace("nvidia", "").split()
    for spelling in ("-".join(words), "-".join(words[:2]), *words):
        try:
            return accelerator(spelling)
        except UnknownAccelerator:
            continue
    raise HardwareError(f"--cuda: {name!r} is not in the catalogue; describe it first with 'setpoint hardware add'")
