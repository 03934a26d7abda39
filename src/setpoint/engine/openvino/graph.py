"""From a model folder to the graph the executor runs: paged attention, sampled positions only, arg-max inside.

Added inputs: ``sampled_positions`` (int32, [S]: rows of the step whose next token is wanted) and ``logits_rows`` (int32, [R]:
which of those S rows are also wanted as logits). Outputs: ``best_token`` (int32, [S, 1]) and ``row_logits`` (float32,
[R, vocabulary]). A greedy step asks for no logits and copies none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from setpoint.engine.openvino.fusion import fuse_parallel_projections
from setpoint.engine.openvino.runtime import ops, ov, paged_attention_transformation
from setpoint.engine.request import EngineFailed

MODEL_FILE = "openvino_model.xml"
WEIGHTS_FILE = "openvino_model.bin"
# Sizes of the parts that a row of logits is searched by.
LEAST_PART = 32
MOST_PART = 512


def load_graph(folder: Path) -> Any:
    """Read and transform the model in ``folder``. Raises ``EngineFailed`` if it is not a decoder we can drive."""
    path = folder / MODEL_FILE
    try:
        model = ov.Core().read_model(path)
        paged_attention_transformation(model)
    except RuntimeError as error:
        raise EngineFailed(f"{path}: not a model that paged attention can be applied to: {first_line(error)}") from error
    names = {name for port in model.inputs for name in port.get_names()}
    if "block_indices" not in names or "input_ids" not in names:
        raise EngineFailed(f"{path}: no attention layer was found to give a paged KV cache to")
    fuse_parallel_projections(model)
    _sample_inside(model)
    return model


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _sample_inside(model: Any) -> None:
    result = model.get_results()[0]
    product = result.input_value(0).get_node()
    while product.get_type_name() != "MatMul":
        if not product.inputs():
            raise EngineFailed("the model's output is not made by a matrix product: cannot tell where logits come from")
        product = product.input_value(0).get_node()
    hidden = product.input_value(0)
    token_axis = 0 if hidden.get_partial_shape()[0].is_dynamic else 1
    positions = _parameter("sampled_positions")
    rows = _parameter("logits_rows")
    product.input(0).replace_source_output(ops.gather(hidden, positions, ops.constant(token_axis)).output(0))
    model.add_parameters([positions, rows])
    model.validate_nodes_and_infer_types()
    logits = result.input_value(0)
    vocabulary = logits.get_partial_shape()[-1].get_length()
    flat = ops.reshape(logits, ops.constant(np.array([-1, vocabulary], dtype=np.int64)), False)
    best = arg_max(flat, vocabulary)
    chosen = ops.gather(flat, rows, ops.constant(0))
    model.remove_result(result)
    model.add_results([_result(best, "best_token"), _result(chosen.output(0), "row_logits")])
    model.validate_nodes_and_infer_types()


def arg_max(rows: Any, width: int) -> Any:
    """Where each of ``rows`` ([S, width]) is greatest, int32 [S, 1]: first which part of the row, then where in that part.

    Finding a maximum reads memory once at full speed, finding its place does not (2.7 ms of a step of 64 rows of 49,152 on two
    cores): so the place is looked for in one part only. A width without a divisor of a good size is searched whole.
    """
    size = next((each for each in range(MOST_PART, LEAST_PART - 1, -1) if width % each == 0), width)
    if size == width:
        return _top(rows).output(1)
    parts = ops.reshape(rows, ops.constant(np.array([-1, width // size, size], dtype=np.int64)), False)
    greatest = ops.reduce_max(parts, ops.constant(np.array([2], dtype=np.int64)), False)
    part = _top(greatest).output(1)
    place = _top(ops.gather(parts, part, ops.constant(1), 1)).output(1)
    flat_place = ops.reshape(place, ops.constant(np.array([-1, 1], dtype=np.int64)), False)
    return ops.add(ops.multiply(part, ops.constant(np.int32(size))), flat_place).output(0)


def _top(values: Any) -> Any:
    return ops.topk(values, ops.constant(np.int64(1)), -1, "max", "value", index_element_type="i32")


def _parameter(name: str) -> Any:
    parameter = ops.parameter([-1], np.int32, name=name)
    parameter.output(0).set_names({name})
    return parameter


def _result(output: Any, name: str) -> Any:
    result = ops.result(output)
    result.output(0).set_names({name})
    return result
