"""``setpoint profile-speculation``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from setpoint.loop.errors import BadInput
from setpoint.loop.flags import option
from setpoint.policy.configuration import SpeculationMode
from setpoint.workload.kinds import WorkloadKind

if TYPE_CHECKING:
    from setpoint.loop.speculation.outcome import Acceptance, SpeculationProfile
    from setpoint.loop.speculation.predicted import There
    from setpoint.requirement import Requirement

WORK, DRAFTER, COSTS, THERE = "Work", "Drafter", "Costs", "On hardware that is not here"
MEASURED_BATCHES, MOST_MEASURED, MOST_PREDICTED = "1,2,4,8,16", 64, 4096
PROFILE_EXAMPLES = """Examples:

- `setpoint profile-speculation smollm2-135m` : prompt lookup on the four shipped kinds of work

- `setpoint profile-speculation my.yaml --prompts mine.jsonl --output profile.json` : on your own prompts

- `setpoint profile-speculation ./large.gguf --draft-model ./small.gguf --kind questions`

- `setpoint profile-speculation llama-3.1-70b --draft-model llama-3.1-8b --hardware h100-sxm --acceptance 75%` : predicted

Of a requirement the model and its speculation's draft model are taken; with --hardware also the mean context of its requests
and its acceptance. Prompts and batches are those of the options. To profile prompt lookup beside a requirement's draft model,
name the model itself.

Exit codes: 0 measured or predicted, 2 bad input.
"""


def profile_speculation(
    subject: Annotated[
        str,
        typer.Argument(metavar="REQUIREMENT.yaml|MODEL", help="A requirement (what is taken of it: below), or a model source."),
    ],
    prompts: Annotated[Path | None, option("FILE", "Your own work: JSON lines with a prompt or messages.", WORK)] = None,
    kind: Annotated[list[WorkloadKind] | None, option("KIND", "Only this shipped kind; may be repeated.", WORK)] = None,
    count: Annotated[int, option("N", "Requests of each kind.", WORK, min=1, max=1000)] = 12,
    temperature: Annotated[float, option("T", "Of requests from --prompts.", WORK, min=0, max=2)] = 0.0,
    output_tokens: Annotated[int, option("N", "Most tokens of their answers.", WORK, min=1, max=4096)] = 128,
    draft_model: Annotated[
        str | None, option("MODEL", "A draft model; default: the requirement's, else prompt lookup.", DRAFTER)
    ] = None,
    max_draft_tokens: Annotated[int, option("N", "Longest guess.", DRAFTER, min=1, max=64)] = 15,
    batches: Annotated[
        str | None, option("LIST", "Batches to time; default: 1,2,4,8,16 (with --hardware to 256).", COSTS)
    ] = None,
    threads: Annotated[int | None, option("N", "Compute threads; default: every core.", COSTS, min=1)] = None,
    hardware: Annotated[str | None, option("NAME", "Predict for it; see setpoint hardware list.", THERE)] = None,
    acceptance: Annotated[
        list[str] | None,
        option("SHARE", "75%, shares by position 0.9,0.7,0.5, or FILE.json[#WORK] of a profile; may be repeated.", THERE),
    ] = None,
    tensor_parallel: Annotated[int | None, option("N", "Devices; default: as few as hold it.", THERE, min=1, max=64)] = None,
    precision: Annotated[str | None, option("NAME", "Of the weights; default: as published.", THERE)] = None,
    engine: Annotated[str, option("NAME", "Whose step times: vllm, sglang, trtllm or setpoint.", THERE)] = "vllm",
    context_tokens: Annotated[
        int | None, option("N", "Context of each request; default: the profile's mean, or 1024.", THERE, min=1, max=1_000_000)
    ] = None,
    output: Annotated[Path | None, option("FILE", "The profile as JSON.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the profile as JSON instead of tables.")] = False,
) -> int:
    """Whether guessing ahead pays for this work: acceptance, costs, and the gain at each batch; measured here, or predicted."""
    from rich.console import Console

    from setpoint.commands.showing import written
    from setpoint.loop.folder import require_writable_file
    from setpoint.loop.speculation.terminal import render_profile
    from setpoint.record import EXIT_MET

    if output is not None:
        require_writable_file("output", output)
    if hardware is not None:
        from setpoint.loop.speculation.predicted import There

        _refuse({"prompts": prompts, "kind": kind, "threads": threads}, "measures here; leave it or --hardware out")
        there = There(hardware, engine, tensor_parallel, precision)
        sizes = None if batches is None else _batches(batches, MOST_PREDICTED)
        profile = _predicted(subject, draft_model, acceptance, there, max_draft_tokens, sizes, context_tokens)
    else:
        elsewhere = {"acceptance": acceptance, "tensor-parallel": tensor_parallel, "precision": precision}
        _refuse(elsewhere, "belongs to a prediction; give --hardware too")
        if prompts is not None and kind:
            raise BadInput("--kind: found --prompts as well, give one of them")
        work = Work(prompts, kind or list(WorkloadKind), count, temperature, output_tokens)
        sizes = _batches(batches or MEASURED_BATCHES, MOST_MEASURED)
        profile = _measured(subject, draft_model, work, max_draft_tokens, sizes, threads)
    if output is not None:
        output.write_text(profile.to_json() + "\n", encoding="utf-8")
    written(lambda: print(profile.to_json()) if json_output else render_profile(profile, Console(highlight=False)))
    return EXIT_MET


@dataclass(frozen=True, slots=True)
class Work:
    """What is answered to measure acceptance: prompts from a file, or so many of each shipped kind."""

    prompts: Path | None
    kinds: list[WorkloadKind]
    count: int
    temperature: float
    output_tokens: int


def _measured(
    subject: str, draft_model: str | None, work: Work, most_tokens: int, sizes: list[int], threads: int | None
) -> SpeculationProfile:
    from setpoint.engine.models import resolve_model
    from setpoint.loop.console import say
    from setpoint.loop.serve import read_subject
    from setpoint.loop.speculation.profile import ProfileOptions, Profiler
    from setpoint.loop.speculation.prompts import shipped_work, work_from_file
    from setpoint.policy.configuration import ServingConfig

    source, requirement = read_subject(subject)
    draft_model = draft_model or _draft_model_of(requirement)
    mode = SpeculationMode.PROMPT_LOOKUP if draft_model is None else SpeculationMode.DRAFT
    config = ServingConfig(
        speculation=mode, draft_model=draft_model, max_draft_tokens=most_tokens, threads=threads, max_running=max(sizes)
    )
    model = resolve_model(source.source, revision=source.revision, say=say)
    profiler = Profiler(model, ProfileOptions(config, sizes))
    try:
        if work.prompts is None:
            requests = shipped_work(work.kinds, profiler.tokenizer, work.count)
        else:
            requests = dict(
                work_from_file(
                    work.prompts,
                    profiler.tokenizer,
                    temperature=work.temperature,
                    output_tokens=work.output_tokens,
                    most_tokens=profiler.context_tokens,
                )
            )
        return profiler.profile(requests, say)
    finally:
        profiler.close()


def _predicted(
    subject: str,
    draft_model: str | None,
    acceptance: list[str] | None,
    there: There,
    most_tokens: int,
    sizes: list[int] | None,
    context_tokens: int | None,
) -> SpeculationProfile:
    from setpoint.loop.speculation.asked import ALLOWED, acceptance_of, drafters_of
    from setpoint.loop.speculation.predicted import BATCHES, CONTEXT_TOKENS, predicted_profile
    from setpoint.loop.subject import is_requirement
    from setpoint.plan.sketch import sketch_of
    from setpoint.requirement import load_requirement

    requirement = load_requirement(Path(subject)) if is_requirement(subject) else None
    allowed = None if requirement is None else requirement.speculation
    typed = [(acceptance_of(text, most_tokens, allowed), text) for text in acceptance or ()]
    acceptances = [each for each, _ in typed] or _stated(requirement, most_tokens)
    if not acceptances:
        raise BadInput(f"--hardware {there.hardware}: acceptance cannot be predicted, give --acceptance: {ALLOWED}")
    draft_model = draft_model or _draft_model_of(requirement)
    mode = SpeculationMode.PROMPT_LOOKUP if draft_model is None else SpeculationMode.DRAFT
    for each, text in typed:
        drafters_of(each, text, (mode.value,))
    if draft_model is not None:
        acceptances = [replace(each, drafted_share=1.0) for each in acceptances]  # It always has a guess.
    model, context = subject, CONTEXT_TOKENS
    if requirement is not None:
        model, context = requirement.model.source, round(sketch_of(requirement.profile).mean_context)
    return predicted_profile(
        model,
        draft_model,
        acceptances,
        there,
        batches=sizes or BATCHES,
        context_tokens=context_tokens or context,
    )


def _draft_model_of(requirement: Requirement | None) -> str | None:
    """The draft model that a requirement names."""
    allowed = None if requirement is None else requirement.speculation
    return None if allowed is None else allowed.draft_model


def _stated(requirement: Requirement | None, most_tokens: int) -> list[Acceptance]:
    """The acceptance that a requirement states, if it does."""
    from setpoint.loop.speculation.asked import acceptance_stated

    stated = None if requirement is None else acceptance_stated(requirement.speculation, most_tokens)
    return [] if stated is None else [stated]


def _refuse(given: Mapping[str, object], words: str) -> None:
    """An option that would be ignored is a mistake. Raises ``BadInput``."""
    for name, value in given.items():
        if value is not None:
            raise BadInput(f"--{name}: {words}")


def _batches(text: str, most: int) -> list[int]:
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < 1 or sizes[-1] > most:
        raise BadInput(f"--batches: found {text!r}, give numbers from 1 to {most} such as 1,2,4,8")
    return sizes
