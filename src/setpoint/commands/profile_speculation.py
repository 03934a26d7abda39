"""``setpoint profile-speculation``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from setpoint.loop.errors import BadInput
from setpoint.loop.flags import option
from setpoint.policy.configuration import SpeculationMode
from setpoint.workload.kinds import WorkloadKind

WORK, DRAFTER, COSTS = "Work", "Drafter", "Costs"
PROFILE_EXAMPLES = """Examples:

- `setpoint profile-speculation smollm2-135m` : prompt lookup on the four shipped kinds of work

- `setpoint profile-speculation my.yaml --prompts mine.jsonl --output profile.json` : on your own prompts

- `setpoint profile-speculation ./large.gguf --draft-model ./small.gguf --kind questions`

Exit codes: 0 measured, 2 bad input.
"""


def profile_speculation(
    subject: Annotated[str, typer.Argument(metavar="REQUIREMENT.yaml|MODEL", help="A requirement, or a model source.")],
    prompts: Annotated[Path | None, option("FILE", "Your own work: JSON lines with a prompt or messages.", WORK)] = None,
    kind: Annotated[list[WorkloadKind] | None, option("KIND", "Only this shipped kind; may be repeated.", WORK)] = None,
    count: Annotated[int, option("N", "Requests of each kind.", WORK, min=1, max=1000)] = 12,
    temperature: Annotated[float, option("T", "Of requests from --prompts.", WORK, min=0, max=2)] = 0.0,
    output_tokens: Annotated[int, option("N", "Most tokens of their answers.", WORK, min=1, max=4096)] = 128,
    draft_model: Annotated[str | None, option("MODEL", "A draft model; default: prompt lookup.", DRAFTER)] = None,
    max_draft_tokens: Annotated[int, option("N", "Longest guess.", DRAFTER, min=1, max=64)] = 15,
    batches: Annotated[str, option("LIST", "Batches to time.", COSTS)] = "1,2,4,8,16",
    threads: Annotated[int | None, option("N", "Compute threads; default: every core.", COSTS, min=1)] = None,
    output: Annotated[Path | None, option("FILE", "The profile as JSON.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the profile as JSON instead of tables.")] = False,
) -> int:
    """Whether guessing ahead pays on this machine for this work: acceptance, costs, and the gain at each batch."""
    from rich.console import Console

    from setpoint.commands.showing import written
    from setpoint.engine.models import resolve_model
    from setpoint.loop.console import say
    from setpoint.loop.serve import read_subject
    from setpoint.loop.speculation.profile import ProfileOptions, Profiler
    from setpoint.loop.speculation.prompts import shipped_work, work_from_file
    from setpoint.loop.speculation.terminal import render_profile
    from setpoint.policy.configuration import ServingConfig
    from setpoint.record import EXIT_MET

    if prompts is not None and kind:
        raise BadInput("--kind: found --prompts as well, give one of them")
    sizes = _batches(batches)
    source, _ = read_subject(subject)
    mode = SpeculationMode.PROMPT_LOOKUP if draft_model is None else SpeculationMode.DRAFT
    config = ServingConfig(
        speculation=mode, draft_model=draft_model, max_draft_tokens=max_draft_tokens, threads=threads, max_running=max(sizes)
    )
    model = resolve_model(source.source, revision=source.revision, say=say)
    profiler = Profiler(model, ProfileOptions(config, sizes))
    try:
        if prompts is None:
            work = shipped_work(kind or list(WorkloadKind), profiler.tokenizer, count)
        else:
            work = dict(work_from_file(prompts, profiler.tokenizer, temperature=temperature, output_tokens=output_tokens))
        profile = profiler.profile(work, say)
    finally:
        profiler.close()
    if output is not None:
        output.write_text(profile.to_json() + "\n", encoding="utf-8")
    written(lambda: print(profile.to_json()) if json_output else render_profile(profile, Console(highlight=False)))
    return EXIT_MET


def _batches(text: str) -> list[int]:
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < 1 or sizes[-1] > 64:
        raise BadInput(f"--batches: found {text!r}, give numbers from 1 to 64 such as 1,2,4,8")
    return sizes
