"""``setpoint plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from setpoint.loop.flags import ARRIVALS, LOAD, MAX_SEED, REQUESTS, SEED_HELP, LoadFlags, option

CHOICE, SEARCH, RESULT = "What to choose from", "How to choose", "Output"
PANELS = (CHOICE, SEARCH, RESULT, LOAD, REQUESTS, ARRIVALS)
PLAN_EXAMPLES = """Examples:

- `setpoint plan my.yaml` : hardware, replicas and serving configuration, ranked by cost

- `setpoint plan my.yaml --hardware h100-sxm,mi300x --price h100-sxm=2.5 --max-gpus 8 --output plans/my`

- `setpoint plan my.yaml --objective latency --hardware h100-sxm --max-gpus 1`

- `setpoint plan --model llama-3.1-8b --rate 40/s --prompt-tokens 500 --output-tokens 200 --assert 'ttft_p95<500ms'`

- `setpoint plan my.yaml --speculation draft --draft-model llama-3.1-8b --acceptance 75%` : guessing ahead, where it pays

- `setpoint plan my.yaml --hardware h100-sxm --improve 'vllm serve MODEL --max-num-seqs 64'`

Exit codes: 0 a plan holds outside its error bar, 1 nothing meets the requirement, 2 bad input, 3 it holds as predicted, but
inside its error bar or on hardware whose error is a guess.
"""


def plan(
    load: LoadFlags,
    requirement: Annotated[
        Path | None, typer.Argument(metavar="[REQUIREMENT.yaml]", help="What the application needs; options change it.")
    ] = None,
    model: Annotated[str | None, option("NAME", "Instead of the requirement's model.", LOAD)] = None,
    assertions: Annotated[
        list[str] | None,
        option("EXPR", "Without limits in a requirement: such as 'ttft_p99<500ms'; may be repeated.", LOAD, name="--assert"),
    ] = None,
    hardware: Annotated[
        list[str] | None, option("NAMES", "Accelerators to choose from, separated by commas; default: the catalogue.", CHOICE)
    ] = None,
    price: Annotated[list[str] | None, option("NAME=USD", "USD an hour of one device; may be repeated.", CHOICE)] = None,
    max_gpus: Annotated[int | None, option("N", "Most devices in all.", CHOICE, min=1)] = None,
    quantization: Annotated[
        list[str] | None, option("NAMES", "Precisions of the weights, such as bf16,fp8; default: the model's.", CHOICE)
    ] = None,
    kv_cache: Annotated[list[str] | None, option("NAMES", "Precisions of the KV cache; default: bf16.", CHOICE)] = None,
    tensor_parallel: Annotated[
        list[str] | None, option("NUMBERS", "Devices that share a replica; default: 1,2,4,8.", CHOICE)
    ] = None,
    scheduler: Annotated[
        list[str] | None, option("NAMES", "vllm (its own) and setpoint (deadlines decide); default: both.", CHOICE)
    ] = None,
    speculation: Annotated[
        list[str] | None, option("NAMES", "Drafters to try: prompt-lookup, draft; default: the requirement's.", CHOICE)
    ] = None,
    draft_model: Annotated[str | None, option("NAME", "With draft: a smaller model of the same vocabulary.", CHOICE)] = None,
    acceptance: Annotated[
        str | None, option("SHARE", "75%, shares by position 0.9,0.7,0.5, or FILE.json[#WORK] of a profile.", CHOICE)
    ] = None,
    objective: Annotated[
        str | None, option("NAME", "cost, tokens-per-usd, latency or power; default: the requirement's.", SEARCH)
    ] = None,
    load_uncertainty: Annotated[
        str | None, option("SHARE", "How well the load is known, one standard error; default: 10%.", SEARCH)
    ] = None,
    confidence: Annotated[str, option("SHARE", "Probability that a recommended plan holds.", SEARCH)] = "90%",
    improve: Annotated[
        str | None, option("COMMAND", "Start from a 'vllm serve ...' that runs today: what to change.", SEARCH)
    ] = None,
    seed: Annotated[int, option("N", SEED_HELP, SEARCH, min=0, max=MAX_SEED)] = 0,
    processes: Annotated[int | None, option("N", "Processes to simulate in; default: every core.", SEARCH, min=1)] = None,
    output: Annotated[Path | None, option("DIR", "Folder for plan.json, plan.html and the exports.", RESULT)] = None,
    json_output: Annotated[bool, option(None, "Print plan.json instead of the table.", RESULT, name="--json")] = False,
) -> int:
    """Hardware, replicas and serving configuration from a requirement, by simulation; and how sure that is."""
    from setpoint.commands.showing import written
    from setpoint.loop.console import say
    from setpoint.loop.planned import PlanOptions, plan_requirement, render

    options = PlanOptions(
        load=load,
        model=model,
        assertions=assertions or (),
        hardware=hardware or (),
        prices=price or (),
        max_gpus=max_gpus,
        quantization=quantization or (),
        kv_cache=kv_cache or (),
        tensor_parallel=tensor_parallel or (),
        schedulers=scheduler or (),
        speculation=speculation or (),
        draft_model=draft_model,
        acceptance=acceptance,
        objective=objective,
        load_uncertainty=load_uncertainty,
        confidence=confidence,
        improve=improve,
        seed=seed,
        processes=processes,
        output=output,
    )
    done = plan_requirement(requirement, options)
    written(lambda: print(done.json_text, end="") if json_output else render(done))
    if output is not None:
        say(f"plan: {output / 'plan.html'}")
    return done.exit_code
