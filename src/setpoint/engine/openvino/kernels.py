"""A compiled model with its one infer request: inputs set by reference, outputs read where they were written."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from setpoint.engine.openvino.graph import first_line
from setpoint.engine.openvino.runtime import ov
from setpoint.engine.request import EngineFailed


class Kernels:
    """``model`` compiled for ``device`` with OpenVINO's ``properties``. Raises ``RuntimeError`` as OpenVINO does.

    caches: the ports of its KV cache, in the model's order.
    """

    def __init__(self, model: Any, device: str, properties: Mapping[str, Any]) -> None:
        compiled = ov.Core().compile_model(model, device, dict(properties))
        self._request = compiled.create_infer_request()
        self._input_index = {port.get_any_name(): index for index, port in enumerate(compiled.inputs)}
        self._output_index = {port.get_any_name(): index for index, port in enumerate(compiled.outputs)}
        self._buffers: dict[str, npt.NDArray[Any]] = {}
        self.caches = [port for port in compiled.inputs if "cache" in port.get_any_name()]
        self.vocabulary = int(compiled.output("row_logits").partial_shape[-1].get_length())

    def use_cache(self, tensors: list[Any]) -> None:
        """Read and write KV in these, one a port of ``caches``."""
        for port, tensor in zip(self.caches, tensors, strict=True):
            self._request.set_tensor(port.get_any_name(), tensor)

    def cache_is_like(self, other: Kernels) -> bool:
        """Whether both lay their KV out alike, so that one may go on where the other ended."""
        return _layout(self.caches) == _layout(other.caches)

    def take(self, inputs: Mapping[str, npt.NDArray[Any]]) -> None:
        """Inputs of the next step. Arrays are shared with the runtime, and written in place while their shape stays."""
        for name, array in inputs.items():
            self._set(name, array)

    def start(self) -> None:
        """Begin the step whose inputs were taken."""
        self._request.start_async()

    def _set(self, name: str, array: npt.NDArray[Any]) -> None:
        buffer = self._buffers.get(name)
        if buffer is not None and buffer.shape == array.shape:
            buffer[...] = array
        elif name in self._input_index:
            self._buffers[name] = array
            self._request.set_input_tensor(self._input_index[name], ov.Tensor(array, shared_memory=True))

    def wait(self) -> None:
        """Until the step is over. Raises ``EngineFailed`` if it failed."""
        try:
            self._request.wait()
        except RuntimeError as error:
            raise EngineFailed(f"the step failed: {first_line(error)}") from error

    def output(self, name: str) -> npt.NDArray[Any]:
        """An output of the last step, valid until the next."""
        data: npt.NDArray[Any] = self._request.get_output_tensor(self._output_index[name]).data
        return data

    def close(self) -> None:
        """Drop the compiled model. A step still running is waited for: it reads and writes our memory."""
        with contextlib.suppress(RuntimeError):
            self._request.wait()
        del self._request
        self._buffers.clear()
        self.caches.clear()  # A port keeps its model, and that the file of its weights.


def new_cache(kernels: Kernels, blocks: int) -> list[Any]:
    """Memory for ``blocks`` blocks of every cache. Touched now, so that no step pays for the page faults."""
    tensors = []
    for port in kernels.caches:
        shape = [blocks, *(d.get_length() for d in list(port.partial_shape)[1:])]
        tensor = ov.Tensor(port.element_type, ov.Shape(shape))
        tensor.data.view(np.uint8)[...] = 0
        tensors.append(tensor)
    return tensors


def block_tokens(kernels: Kernels) -> int:
    """The CPU packs scales beside the keys, so the value cache's shape [blocks, heads, tokens, size] tells the truth."""
    value = next(port for port in kernels.caches if port.get_any_name().startswith("value_cache"))
    return int(value.partial_shape[2].get_length())


def _layout(caches: list[Any]) -> list[tuple[str, str, str]]:
    return [(port.get_any_name(), str(port.element_type), str(port.partial_shape)) for port in caches]
