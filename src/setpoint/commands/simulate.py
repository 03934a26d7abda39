"""``setpoint simulate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from setpoint.loop.flags import (
    ARRIVALS,
    LENGTH,
    LOAD,
    OUTPUT,
    REQUESTS,
    TRACE,
    LengthFlags,
    LoadFlags,
    OutputFlags,
    TraceFlags,
)
from setpoint.loop.flags import option as _option

SYSTEM, BESIDE, GUESSES = "System", "Replicas", "Speculation"
PANELS = (SYSTEM, BESIDE, GUESSES, LOAD, REQUESTS, LENGTH, OUTPUT, ARRIVALS, TRACE)

HELP = """Simulate a load on hardware you may not have: the same policies and rules, on a virtual clock.

Examples:

- `setpoint simulate my.yaml --hardware h100-sxm --model llama-3.1-8b` : would the requirement hold there?

- `setpoint simulate --model llama-3.1-8b --hardware h100-sxm --engine vllm --rate 10/s --requests 10000` : vLLM's defaults

- `setpoint simulate my.yaml --hardware mi300x --model llama-3.1-70b --replicas 2 --mode setpoint` : two, in setpoint's mode

- `setpoint simulate my.yaml --model llama-3.1-70b --hardware h100-sxm --tensor-parallel 4 --speculation draft --draft-model
llama-3.1-8b --acceptance 75%` : with guesses of which three in four come true

- `setpoint simulate --model llama-3.1-8b --hardware a100-80 --trace mooncake.jsonl` : a trace, its shared prefixes found again

Nothing is measured: a step takes what the hardware's model says, and the report says where that comes from. The same seed gives
the same report.
"""

EPILOG = "Exit codes: 0 every limit is met (or there is none), 1 one is missed, 2 bad input, 3 inconclusive: simulate longer."


@dataclass(frozen=True, slots=True)
class SystemFlags:
    """What serves."""

    model: Annotated[
        str | None, _option("NAME", "A name, a config.json or a GGUF file; default: the requirement's.", SYSTEM)
    ] = None
    hardware: Annotated[str, _option("NAME", "Accelerator, see setpoint hardware list.", SYSTEM)] = "this-machine"
    tensor_parallel: Annotated[int, _option("N", "Devices that share each layer.", SYSTEM, min=1, max=64)] = 1
    engine: Annotated[str, _option("NAME", "setpoint or vllm: whose overheads and defaults.", SYSTEM)] = "setpoint"
    mode: Annotated[
        str | None, _option("NAME", "immediate, static, continuous or setpoint; default: the engine's.", SYSTEM)
    ] = None
    max_running: Annotated[int | None, _option("N", "Most requests in a step.", SYSTEM, min=1)] = None
    token_budget: Annotated[int | None, _option("N", "Most new tokens in a step.", SYSTEM, min=1)] = None
    max_waiting: Annotated[int | None, _option("N", "Bound of the queue.", SYSTEM, min=0)] = None
    precision: Annotated[str | None, _option("NAME", "Of the weights; default: as published.", SYSTEM)] = None
    kv_precision: Annotated[str, _option("NAME", "Of the KV cache.", SYSTEM)] = "bf16"
    kv_tokens: Annotated[int | None, _option("N", "KV cache of a replica; default: what its memory holds.", SYSTEM, min=64)] = (
        None
    )
    replicas: Annotated[int, _option("N", "Copies behind a router.", BESIDE, min=1, max=1024)] = 1
    routing: Annotated[str, _option("NAME", "round-robin or least-outstanding.", BESIDE)] = "round-robin"
    speculation: Annotated[str | None, _option("NAME", "off, prompt-lookup or draft; default: off.", GUESSES)] = None
    draft_model: Annotated[str | None, _option("NAME", "With draft: a smaller model of the same vocabulary.", GUESSES)] = None
    acceptance: Annotated[
        str | None, _option("SHARE", "75%, shares by position 0.9,0.7,0.5, or FILE.json[#WORK] of a profile.", GUESSES)
    ] = None
    draft_tokens: Annotated[
        int | None, _option("N", "Always drafts of that length, as vLLM does; default: what pays.", GUESSES, min=0, max=64)
    ] = None
    max_draft_tokens: Annotated[int | None, _option("N", "Longest draft; default: 15.", GUESSES, min=1, max=64)] = None


def simulate(
    system: SystemFlags,
    load: LoadFlags,
    trace: TraceFlags,
    length: LengthFlags,
    output: OutputFlags,
    requirement: Annotated[
        Path | None, typer.Argument(metavar="[REQUIREMENT.yaml]", help="Profile and limits; options change it.")
    ] = None,
) -> int:
    """See ``HELP``. The exit code is the verdict."""
    from setpoint.commands.showing import show
    from setpoint.loop.exports import deliver, require_writable
    from setpoint.loop.simulation.asked import simulate_asked

    require_writable(output)
    report = simulate_asked(requirement, system, load, trace, length, output)
    deliver(report, output)
    show(report, output.output, json_output=output.json_output)
    return report.exit_code()
