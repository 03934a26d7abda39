"""Tokenizers as graphs often cut what is long, silently: a converted one at a constant, whatever the model's context.

A prompt that is too long is refused by its length (``engine/validation.py``); one that fits has to arrive whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from setpoint.engine.openvino.runtime import ops, ov

# The operations that cut: an own one, and a minimum of lengths and a constant.
CUTTING = ("Truncate", "Minimum")
# Room for the special tokens that are added behind the cut.
LONGEST = (1 << 31) - 1024
LEAST_CUT = 16


def read_uncut(file: Path) -> Any:
    """The tokenizer's graph in ``file``, without its cut. Raises ``RuntimeError`` or ``ImportError`` if it cannot be read."""
    import openvino_tokenizers

    core = ov.Core()
    core.add_extension(str(openvino_tokenizers._ext_path))
    model = core.read_model(file)
    _lift(model)
    return model


def save_uncut(file: Path) -> None:
    """Write the graph in ``file`` anew, without its cut."""
    model = read_uncut(file)
    whole = file.with_name(f"whole-{file.name}")
    ov.save_model(model, str(whole), compress_to_fp16=False)
    del model  # Before the weights it was read from are replaced.
    whole.replace(file)
    whole.with_suffix(".bin").replace(file.with_suffix(".bin"))


def _lift(model: Any) -> None:
    for operation in model.get_ops():
        if operation.get_type_name() not in CUTTING:
            continue
        for place in operation.inputs():
            constant = place.get_source_output().get_node()
            if constant.get_type_name() != "Constant":
                continue
            value = np.asarray(constant.data)
            if value.size == 1 and np.issubdtype(value.dtype, np.integer) and int(value.reshape(-1)[0]) >= LEAST_CUT:
                longest = np.full(value.shape, LONGEST, dtype=value.dtype)
                place.replace_source_output(ops.constant(longest).output(0))
