"""``setpoint hardware``: accelerators, what steps cost on them, calibrations, and predictions scored against measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Accelerators: their facts, what a step costs on them, calibration, and how well predictions hold.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    epilog="Examples:\n\n- `setpoint hardware list`\n\n- `setpoint hardware show h100-sxm --model llama-3.1-8b`\n\n"
    "- `setpoint hardware calibrate runs/one` : learn this machine's step time from a run\n\n"
    "- `setpoint hardware validate measured.csv --json`",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_hardware(json_output: Json = False) -> int:
    """Accelerators, with memory, bandwidth, operations, link, power and a default price."""
    from setpoint.commands.hardware_tables import accelerators_table
    from setpoint.commands.showing import written
    from setpoint.hardware.accelerator import accelerators
    from setpoint.hardware.describe import accelerator_as_dict

    found = accelerators()
    if json_output:
        written(lambda: print(json.dumps([accelerator_as_dict(each) for each in found], indent=1)))
    else:
        _shown(accelerators_table(found))
    return 0


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An accelerator, or a model's name or path.")],
    model: Annotated[str | None, typer.Option("--model", help="Name, config.json or GGUF file: what steps cost.")] = None,
    tensor_parallel: Annotated[int, typer.Option("--tensor-parallel", min=1, max=64, help="Devices that share a layer.")] = 1,
    engine: Annotated[str, typer.Option("--engine", help="setpoint, vllm, sglang or trtllm.")] = "vllm",
    precision: Annotated[str | None, typer.Option("--precision", help="Of the weights; default: as published.")] = None,
    json_output: Json = False,
) -> int:
    """One accelerator, and with `--model` what fits there, how long steps take and what bounds them; or one model."""
    from setpoint.commands.hardware_tables import deployment_table, facts_table
    from setpoint.commands.showing import written
    from setpoint.hardware.describe import accelerator_as_dict, deployment_as_dict, model_as_dict

    found: dict[str, Any] = {}
    device = _accelerator_or_none(name)
    if device is None:
        found["model"] = model_as_dict(_model(name))
    else:
        found["accelerator"] = accelerator_as_dict(device)
    if device is not None and model is not None:
        found["model"] = model_as_dict(_model(model))
        found["deployment"] = deployment_as_dict(_deployment(device, model, tensor_parallel, engine, precision))
    if json_output:
        written(lambda: print(json.dumps(found, indent=1)))
        return 0
    for part in ("accelerator", "model"):
        if part in found:
            _shown(facts_table(part, found[part]))
    if "deployment" in found:
        _shown(deployment_table(found["deployment"]))
    return 0


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML of an accelerator, or a model's config.json.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of a model; default: that of its folder.")] = None,
) -> int:
    """Add an accelerator or a model to your own catalogue."""
    from setpoint.hardware.additions import add_accelerator, add_model

    target = add_model(file, name) if file.suffix.lower() == ".json" else add_accelerator(file)
    print(f"added: {target}")
    return 0


@app.command()
def calibrate(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN|FILE.csv]", help="A run folder with steps.parquet, or a table of measurements."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Model to run here, or that the run was of.")] = None,
    hardware: Annotated[str, typer.Option("--hardware", help="The accelerator that was measured.")] = "this-machine",
    cuda: Annotated[bool, typer.Option("--cuda", help="Measure the GPU of this machine with PyTorch.")] = False,
    json_output: Json = False,
) -> int:
    """Learn how long steps take: from a run, from a table, or (without an argument) by running steps on this machine.

    The calibration is written to your data folder (`$XDG_DATA_HOME/setpoint`), where plans and simulations find it.
    """
    from setpoint.commands.showing import written
    from setpoint.loop.calibrating import calibrated

    found = calibrated(source, model=model, hardware=hardware, cuda=cuda)
    text = json.dumps(found.document, indent=1) if json_output else found.words
    written(lambda: print(text))
    return 0


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Measurements, in the columns docs/hardware.md lists.")],
    json_output: Json = False,
    prior: Annotated[bool, typer.Option("--prior", help="Without any calibration: physics and prior means alone.")] = False,
    unfitted: Annotated[bool, typer.Option("--unfitted", help="Leave out rows that the calibration was fitted on.")] = False,
) -> int:
    """Score predictions against measurements; nothing is fitted on them."""
    from setpoint.commands.hardware_tables import validation_table
    from setpoint.commands.showing import written
    from setpoint.hardware.calibrations import effects_calibration
    from setpoint.hardware.errors import HardwareError
    from setpoint.hardware.measurements import read_measurements
    from setpoint.hardware.validate import validate as scored

    calibration = effects_calibration()
    rows = read_measurements(file)
    if unfitted and calibration is not None:
        rows = [row for row in rows if row.name not in calibration.rows]
        if not rows:
            raise HardwareError(f"{file}: every row of it was fitted on, so --unfitted leaves none")
    found = scored(rows, None if prior else calibration)
    if json_output:
        written(lambda: print(json.dumps(found.as_dict(), indent=1)))
    else:
        _shown(validation_table(found))
    return 0


def _shown(table: Any) -> None:
    from rich.console import Console

    from setpoint.commands.showing import written

    written(lambda: Console().print(table))


def _accelerator_or_none(name: str) -> Any:
    """The accelerator, or ``None`` if ``name`` is a model's. Raises ``UnknownAccelerator`` if it is neither."""
    from setpoint.hardware.accelerator import UnknownAccelerator, accelerator
    from setpoint.hardware.model_facts import UnknownModel

    try:
        return accelerator(name)
    except UnknownAccelerator as unknown:
        try:
            _model(name)
        except UnknownModel:
            raise unknown from None
        return None


def _model(name: str) -> Any:
    from setpoint.hardware.model_facts import model_facts

    return model_facts(name)


def _deployment(device: Any, model: str, tensor_parallel: int, engine: str, precision: str | None) -> Any:
    from setpoint.hardware.deployment import ENGINES, Deployment, check_split
    from setpoint.hardware.errors import HardwareError
    from setpoint.hardware.model_facts import precision_name

    facts = _model(model)
    if engine not in ENGINES:
        raise HardwareError(f"--engine {engine!r} is not known: choose from {', '.join(ENGINES)}")
    check_split(facts, tensor_parallel, "--tensor-parallel")
    weights = precision_name(precision) if precision else facts.native_precision
    return Deployment(facts, device, tensor_parallel, engine, weights)
