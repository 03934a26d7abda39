"""A smaller model with the same vocabulary from a converted one: its first layers and its output matrix, nothing trained.

    python benchmarks/speculation/cut_layers.py 6 --output build/smollm2-6-layers

A poor guesser (a model's middle is not made to be read by its end), and the honest lower bound for a draft model made of these
weights: it shows what a draft model costs here, and that speculation is given up where it does not pay. Works on models that
were converted from GGUF, whose layers are named.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

from setpoint.engine.models import DEMO_MODEL, resolve_model
from setpoint.engine.openvino.graph import MODEL_FILE, WEIGHTS_FILE
from setpoint.engine.openvino.runtime import ov

LAYER_END = re.compile(r"model\.layers\..*add1\.layer(\d+)$")


def cut(model: Any, layers: int) -> None:
    """Change ``model`` in place: what read the end of the last layer reads the end of layer ``layers`` - 1."""
    ends = {int(found[1]): op for op in model.get_ordered_ops() if (found := LAYER_END.match(op.get_friendly_name()))}
    if layers - 1 not in ends or layers >= len(ends):
        raise SystemExit(f"layers: found {layers}, give 1 to {len(ends) - 1}: the model has {len(ends)} that are named")
    last, kept = ends[max(ends)].output(0), ends[layers - 1].output(0)
    for target in last.get_target_inputs():
        target.replace_source_output(kept)
    for sink in model.get_sinks():
        if not _reads(model, sink):
            model.remove_sink(sink)
    reachable = {op.get_variable_id() for op in model.get_ordered_ops() if op.get_type_name() == "ReadValue"}
    for variable in model.get_variables():
        if variable.info.variable_id not in reachable:
            model.remove_variable(variable)
    model.validate_nodes_and_infer_types()


def _reads(model: Any, sink: Any) -> bool:
    """Whether the state that ``sink`` writes is still used by the output."""
    return sink.get_variable_id() in _used_states(model)


def _used_states(model: Any) -> set[str]:
    seen: set[str] = set()
    states: set[str] = set()
    stack = [result.input_value(0).get_node() for result in model.get_results()]
    while stack:
        node = stack.pop()
        if node.get_friendly_name() in seen:
            continue
        seen.add(node.get_friendly_name())
        if node.get_type_name() == "ReadValue":
            states.add(node.get_variable_id())
        stack += [each.get_source_output().get_node() for each in node.inputs()]
    return states


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", type=int)
    parser.add_argument("--model", default=DEMO_MODEL)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    folder = resolve_model(arguments.model).folder
    model = ov.Core().read_model(folder / MODEL_FILE)
    cut(model, arguments.layers)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if file.name not in (MODEL_FILE, WEIGHTS_FILE):
            shutil.copy(file, arguments.output / file.name)
    ov.save_model(model, arguments.output / MODEL_FILE, compress_to_fp16=False)
    print(f"{arguments.output}: {(arguments.output / WEIGHTS_FILE).stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
