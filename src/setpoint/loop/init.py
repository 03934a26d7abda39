"""``setpoint init``: a commented requirement from options, from a shipped example, or from a few questions."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import typer

from setpoint.loop.describe import FlagError
from setpoint.requirement import example_names, example_text, render_requirement


@dataclass(frozen=True, slots=True)
class InitAnswers:
    """What the user said; ``None`` where nothing was said."""

    name: str | None = None
    model: str | None = None
    rate: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    streaming: bool | None = None
    ttft_p95: str | None = None
    itl_p99: str | None = None
    e2e_p95: str | None = None
    burst_rate: str | None = None
    objective: str | None = None
    usd_per_hour: float | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was said at all."""
        return all(getattr(self, field.name) is None for field in fields(self))


def init_text(answers: InitAnswers, *, example: str | None, ask: bool) -> str:
    """The text of the file. Raises ``RequirementError`` for an answer that is not allowed."""
    if example is not None:
        if example not in example_names():
            raise FlagError(f"--example {example}: the shipped examples are {', '.join(example_names())}")
        return example_text(example)
    return _render(_ask(answers) if ask else answers)


def _ask(answers: InitAnswers) -> InitAnswers:
    """A handful of questions, each with a default that Enter takes."""
    streaming = typer.confirm("Does somebody read the tokens as they come?", default=True)
    answers = replace(
        answers,
        streaming=streaming,
        name=typer.prompt("Name of the application", default="my-application"),
        model=typer.prompt("Model (demo model, GGUF file, OpenVINO folder, owner/name on the hub)", default="smollm2-135m"),
        rate=typer.prompt("Requests per second", default="2/s"),
        prompt_tokens=typer.prompt("Typical prompt tokens", default=128, type=int),
        output_tokens=typer.prompt("Typical output tokens", default=64, type=int),
    )
    if streaming:
        return replace(
            answers,
            ttft_p95=typer.prompt("95 % of first tokens within", default="500ms"),
            itl_p99=typer.prompt("99 % of gaps between tokens within", default="80ms"),
        )
    return replace(answers, e2e_p95=typer.prompt("95 % of whole answers within", default="2s"))


def _render(answers: InitAnswers) -> str:
    streaming = True if answers.streaming is None else answers.streaming
    given = {"ttft": ("p95", answers.ttft_p95), "itl": ("p99", answers.itl_p99), "e2e": ("p95", answers.e2e_p95)}
    return render_requirement(
        name=answers.name or "my-application",
        model=answers.model or "smollm2-135m",
        prompt_tokens=answers.prompt_tokens or 128,
        output_tokens=answers.output_tokens or 64,
        streaming=streaming,
        rate=answers.rate or "2/s",
        burst_rate=answers.burst_rate,
        slo={metric: {statistic: limit} for metric, (statistic, limit) in given.items() if limit is not None},
        objective=answers.objective or "max_goodput",
        usd_per_hour=answers.usd_per_hour,
    )
