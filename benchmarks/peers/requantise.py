"""The demo model's GGUF with its Q4_1 matrices as Q4_0, for which llama.cpp has faster kernels than for Q4_1.

    build/vllm-cpu/bin/python benchmarks/peers/requantise.py MODEL.gguf build/smollm2-q4_0.gguf

Needs the package ``gguf`` (the environment of benchmarks/real/install_vllm_cpu.sh has it). Every other tensor and all metadata
stay. The weights are rounded once more, so answers differ a little; the work does not.
"""

from __future__ import annotations

import sys
from typing import Any

from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize, quantize

FROM, TO = GGMLQuantizationType.Q4_1, GGMLQuantizationType.Q4_0
WRITTEN_BY_THE_WRITER = ("GGUF.", "general.architecture")


def main() -> None:
    source, target = sys.argv[1:]
    reader = GGUFReader(source)
    architecture = reader.get_field("general.architecture")
    assert architecture is not None, "a GGUF names its architecture"
    writer = GGUFWriter(target, architecture.contents())
    for field in reader.fields.values():
        if not field.name.startswith(WRITTEN_BY_THE_WRITER):
            kind = field.types[0]
            inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        data: Any = tensor.data
        if tensor.tensor_type == FROM:
            writer.add_tensor(tensor.name, quantize(dequantize(data, FROM), TO), raw_dtype=TO)
        else:
            writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
