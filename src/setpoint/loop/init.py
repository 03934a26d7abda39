"""``setpoint init``: a commented requirement from options, from a shipped example, or from a few questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import typer

from setpoint.loop.describe import FlagError
from setpoint.requirement import (
    Objective,
    RequirementError,
    UnitError,
    example_names,
    example_text,
    render_requirement,
)
from setpoint.requirement.units import parse_burst_rate_rps, parse_duration_s, parse_rate_rps

NO_BURST = "none"
DEFAULT_RATE = "2/s"
DEFAULT_TTFT, DEFAULT_ITL, DEFAULT_E2E = "500ms", "80ms", "2s"
LATENCY_OBJECTIVES = (None, Objective.MAX_GOODPUT.value, Objective.MIN_LATENCY.value)
# Which option a field of the requirement comes from.
OPTIONS = (
    ("name", "--name"),
    ("model", "--model"),
    ("profile.prompt_tokens", "--prompt-tokens"),
    ("profile.output_tokens", "--output-tokens"),
    ("profile.arrival.rate", "--rate"),
    ("profile.burst", "--burst-rate"),
    ("slo.ttft", "--ttft-p95"),
    ("slo.itl", "--itl-p99"),
    ("slo.e2e", "--e2e-p95"),
    ("objective", "--objective"),
    ("price", "--usd-per-hour"),
)


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
    """The text of the file. Raises ``FlagError`` for an answer that is not allowed."""
    if example is None:
        return _render(_with_limits(_ask() if ask else answers))
    if example not in example_names():
        raise FlagError(f"--example {example}: the shipped examples are {', '.join(example_names())}")
    if not answers.empty:
        raise FlagError("--example: takes the example as it is; leave out the other options and edit the file")
    return example_text(example)


def _ask() -> InitAnswers:
    """A handful of questions, each with a default that Enter takes; a wrong answer is asked for again."""
    typer.echo("A few questions; Enter takes the answer in brackets.", err=True)
    name = _prompt("Name of the application", "my-application")
    model = _prompt("Model (smollm2-135m, a GGUF file, an OpenVINO folder, owner/name on the hub)", "smollm2-135m")
    streaming = typer.confirm("Does somebody read the tokens as they come?", default=True, err=True)
    prompt_tokens = _tokens("Typical prompt tokens", 128)
    output_tokens = _tokens("Typical output tokens", 64)
    rate = _prompt("Requests per second", DEFAULT_RATE, _check_rate)
    burst = _prompt("Rate of a burst, such as 3x or 6/s", NO_BURST, lambda text: _check_burst(text, parse_rate_rps(rate)))
    answers = InitAnswers(name, model, rate, prompt_tokens, output_tokens, streaming)
    answers = replace(answers, burst_rate=None if burst == NO_BURST else burst)
    if not streaming:
        return replace(answers, e2e_p95=_prompt("95 % of whole answers within", DEFAULT_E2E, _check_limit))
    answers = replace(answers, ttft_p95=_prompt("95 % of first tokens within", DEFAULT_TTFT, _check_limit))
    if output_tokens == 1:
        return answers
    return replace(answers, itl_p99=_prompt("99 % of gaps between tokens within", DEFAULT_ITL, _check_limit))


def _prompt(question: str, default: str, check: Callable[[str], object] | None = None) -> str:
    def value(text: str) -> str:
        try:
            if check is not None:
                check(text)
        except UnitError as error:
            raise typer.BadParameter(str(error)) from error
        return text.strip()

    answer: str = typer.prompt(question, default=default, value_proc=value, err=True)
    return answer


def _tokens(question: str, default: int) -> int:
    def value(text: str) -> int:
        if not text.strip().isascii() or not text.strip().isdigit() or int(text) < 1:
            raise typer.BadParameter("a whole number of at least 1")
        return int(text)

    answer: int = typer.prompt(question, default=str(default), value_proc=value, err=True)
    return answer


def _check_limit(text: str) -> None:
    if not parse_duration_s(text) > 0:
        raise UnitError("a duration above 0, for example 300ms")


def _check_rate(text: str) -> None:
    if not parse_rate_rps(text) > 0:
        raise UnitError("a rate above 0, for example 2.5/s")


def _check_burst(text: str, sustained_rps: float) -> None:
    if text.strip() != NO_BURST and not parse_burst_rate_rps(text, sustained_rps) > sustained_rps:
        raise UnitError(f"a rate above the sustained one, such as 3x, or {NO_BURST}")


def _with_limits(answers: InitAnswers) -> InitAnswers:
    """Usual limits where none was given, unless throughput or cost is what matters: then no limit is a fair wish."""
    given = any((answers.ttft_p95, answers.itl_p99, answers.e2e_p95))
    if given or answers.objective not in LATENCY_OBJECTIVES:
        return answers
    if answers.streaming is False:
        return replace(answers, e2e_p95=DEFAULT_E2E)
    return replace(answers, ttft_p95=DEFAULT_TTFT, itl_p99=None if answers.output_tokens == 1 else DEFAULT_ITL)


def _render(answers: InitAnswers) -> str:
    streaming = True if answers.streaming is None else answers.streaming
    given = {"ttft": ("p95", answers.ttft_p95), "itl": ("p99", answers.itl_p99), "e2e": ("p95", answers.e2e_p95)}
    try:
        return render_requirement(
            name=answers.name if answers.name is not None else "my-application",
            model=answers.model if answers.model is not None else "smollm2-135m",
            prompt_tokens=answers.prompt_tokens or 128,
            output_tokens=answers.output_tokens or 64,
            streaming=streaming,
            rate=answers.rate if answers.rate is not None else DEFAULT_RATE,
            burst_rate=answers.burst_rate,
            slo={metric: {statistic: limit} for metric, (statistic, limit) in given.items() if limit is not None},
            objective=answers.objective or "max_goodput",
            usd_per_hour=answers.usd_per_hour,
        )
    except RequirementError as error:
        problem = error.problems[0]
        option = next((name for start, name in OPTIONS if problem.field.startswith(start)), problem.field)
        raise FlagError(f"{option}: found {problem.found}; allowed: {problem.allowed}") from error
