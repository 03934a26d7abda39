"""Tables of closed-loop measurements: one row a model, accelerator, engine, parallelism, lengths and concurrency.

Columns needed: ``backend``, ``model_path``, ``system``, ``isl``, ``osl``, ``batch_size``, ``tp_size``, ``silicon_ttft_ms``,
``silicon_tpot_ms``; used where there: ``precision``, ``gemm_quant_mode``, ``moe_quant_mode``, ``attention_dp_size``,
``moe_tp_size``, ``moe_ep_size``, ``pp_size``, ``backend_version``, ``id``. Batch sizes are those of one attention rank.

Such tables mix conventions. What is made of them here: devices of tensor and expert parallelism multiplied into ``tp_size``
(64 = 8 x 8 on a node of 8) are told by ``tp_size`` = ``moe_tp_size`` x ``moe_ep_size`` with both equal; likewise for
``attention_dp_size``. Weights that cannot fit on the devices named were on more: the number is doubled until they do. A row is
refused, with its reason, where the model, accelerator or engine is unknown, where heads cannot be dealt out to the devices,
where more than ``MOST_TENSOR_PARALLEL`` would share a layer, or where a number that must be positive is not.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from setpoint.hardware.accelerator import accelerator
from setpoint.hardware.deployment import ENGINES, Deployment, device_weight_bytes, kv_capacity_sequences, sequence_bytes
from setpoint.hardware.errors import HardwareError
from setpoint.hardware.model_facts import ModelFacts, model_facts, precision_name

NEEDED = (
    "backend", "model_path", "system", "isl", "osl", "batch_size", "tp_size", "silicon_ttft_ms", "silicon_tpot_ms",
)  # fmt: skip
MOST_ROWS = 1_000_000
MOST_TENSOR_PARALLEL = 16
MOST_DEVICES = 64
# Of the device's memory, in engines set up for a benchmark.
MEMORY_SHARE = 0.95
# Of a request's output, which share its place in the cache is reserved for: TensorRT-LLM takes a request only when all of it
# fits, SGLang expects a part of it, vLLM takes what is free (half of the output on average) and preempts.
RESERVED_OUTPUT = {"trtllm": 1.0, "sglang": 0.6, "vllm": 0.5, "setpoint": 0.5}
# Of the device's memory: what weights may fill at most, and what is left for the cache at least.
FULL, LEAST_CACHE = 0.98, 0.03


@dataclass(frozen=True, slots=True)
class Setting:
    """What a row says was run.

    version: of the engine. protocol: which columns the row has, a hint at who measured it. label: what the row calls the model.
    """

    deployment: Deployment
    prompt_tokens: float
    output_tokens: float
    concurrency: float
    version: str
    protocol: str
    label: str = ""

    @property
    def capacity(self) -> float:
        """How many sequences of these lengths the cache holds, as the engine reserves it: as it ran, some memory was left."""
        context = self.prompt_tokens + RESERVED_OUTPUT[self.deployment.kernels] * self.output_tokens
        one = sequence_bytes(self.deployment, context)
        least = LEAST_CACHE * self.deployment.accelerator.memory_bytes * self.deployment.data_parallel / max(one, 1e-9)
        return max(kv_capacity_sequences(self.deployment, context, memory_share=MEMORY_SHARE), least, 1.0)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row. setting: ``None`` where it is refused, ``refused`` says why. Seconds are means, ``None`` where absent."""

    name: str
    group: tuple[str, str, str]
    setting: Setting | None
    refused: str
    ttft_s: float | None
    tpot_s: float | None


def read_measurements(file: Path) -> list[Measurement]:
    """The rows of ``file``. Raises ``HardwareError`` if it cannot be read or lacks a needed column."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
            if missing:
                raise HardwareError(f"{file}: no column {missing[0]!r}; needed are {', '.join(NEEDED)}")
            rows = []
            for number, row in enumerate(reader):
                if number >= MOST_ROWS:
                    raise HardwareError(f"{file}: more than {MOST_ROWS} rows")
                rows.append(_measurement(row, number))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HardwareError(f"{file}: cannot be read as CSV: {error}") from error
    if not rows:
        raise HardwareError(f"{file}: has no rows")
    return rows


def _measurement(row: Mapping[str, str | None], number: int) -> Measurement:
    text = {key: (value or "").strip() for key, value in row.items() if isinstance(key, str) and not isinstance(value, list)}
    group = (text["backend"], text["system"], text["model_path"])
    setting, refused = None, ""
    try:
        setting = setting_of(text)
    except HardwareError as error:
        refused = str(error)
    ttft_ms, tpot_ms = (_positive(text[name]) for name in ("silicon_ttft_ms", "silicon_tpot_ms"))
    return Measurement(
        text.get("id") or f"row {number + 1}",
        group,
        setting,
        refused,
        None if ttft_ms is None else ttft_ms / 1e3,
        None if tpot_ms is None else tpot_ms / 1e3,
    )


def setting_of(row: Mapping[str, str]) -> Setting:
    """What was run in ``row``. Raises ``HardwareError`` that says why it is refused."""
    engine = row["backend"].lower().replace("tensorrt-llm", "trtllm").replace("tensorrt_llm", "trtllm")
    if engine not in ENGINES:
        raise HardwareError(f"engine {row['backend']!r} is not known: choose from {', '.join(ENGINES)}")
    model, device = model_facts(row["model_path"]), accelerator(row["system"])
    prompt, output, batch = (_needed(row, name) for name in ("isl", "osl", "batch_size"))
    if (_positive(row.get("pp_size", "")) or 1.0) > 1:
        raise HardwareError("pp_size above 1: stages in a row are not modelled")
    tensor, ranks, experts, copies = _parallelism(row)
    if tensor > MOST_TENSOR_PARALLEL or model.heads % tensor:
        raise HardwareError(f"tp_size {tensor}: {model.heads} heads cannot be dealt out to so many devices")
    precision = weight_precision(row, model)
    kv = "fp8" if precision in ("fp8", "fp4") else "bf16"
    deployment = Deployment(model, device, tensor, engine, precision, kv, ranks, experts)
    while device_weight_bytes(deployment) > FULL * device.memory_bytes and deployment.devices < MOST_DEVICES:
        deployment = replace(deployment, tensor_parallel=2 * deployment.tensor_parallel)
    protocol = "ranks" if row.get("attention_dp_size") else "plain"
    return Setting(deployment, prompt, output, batch * copies, row.get("backend_version", ""), protocol, row["model_path"])


def weight_precision(row: Mapping[str, str], model: ModelFacts) -> str:
    """What the weights were stored in: as the row says, else as the model was published."""
    for name in ("precision", "moe_quant_mode", "gemm_quant_mode"):
        if row.get(name):
            return precision_name(row[name])
    return model.native_precision


def _parallelism(row: Mapping[str, str]) -> tuple[int, int, int, int]:
    """Tensor parallelism of attention, its ranks, expert parallelism, and by how many the batch size is to be multiplied."""
    counts = []
    for name in ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size"):
        text = row.get(name, "")
        value = _positive(text)
        if text and (value is None or value < 1) and (name == "tp_size" or row.get("attention_dp_size")):
            raise HardwareError(f"{name} must be at least 1, found {text!r}")
        counts.append(max(1, int(value or 1)))
    tensor, ranks, expert_tensor, experts = counts
    copies = ranks
    if expert_tensor == experts > 1:
        if tensor == experts**2:
            tensor = experts
        elif tensor == 1 and ranks == experts**2:
            ranks = experts
    elif expert_tensor == 1 and tensor == ranks > 1 and experts == tensor * ranks:
        tensor, experts = 1, ranks
    return tensor, ranks, min(experts, tensor * ranks), copies


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < 1e12 else None


def _needed(row: Mapping[str, str], name: str) -> float:
    value = _positive(row[name])
    if value is None:
        raise HardwareError(f"{name} must be a number above 0, found {row[name]!r}")
    return value


def covered(rows: Sequence[Measurement]) -> list[int]:
    """Which rows are not refused."""
    return [number for number, row in enumerate(rows) if row.setting is not None]
