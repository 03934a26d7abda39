"""``setpoint init``: a commented requirement from options, from a shipped example, or from a few questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

import typer

from setpoint.loop.flags import option
from setpoint.loop.option_names import INIT_OPTIONS, option_for
from setpoint.loop.shorthand import FlagError
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
DEFAULT_MODEL = "smollm2-135m"
# Answers that a trace or a metrics page gives.
SHOWN_BY_PRODUCTION = {
    "prompt_tokens": "--prompt-tokens",
    "output_tokens": "--output-tokens",
    "burst_rate": "--burst-rate",
    "streaming": "--streaming",
    "objective": "--objective",
    "usd_per_hour": "--usd-per-hour",
}
DEFAULT_RATE = "2/s"
DEFAULT_TTFT, DEFAULT_ITL, DEFAULT_E2E = "500ms", "80ms", "2s"
LATENCY_OBJECTIVES = (None, Objective.MAX_GOODPUT.value, Objective.MIN_LATENCY.value)


@dataclass(frozen=True, slots=True)
class InitAnswers:
    """What the user said; ``None`` where nothing was said. Each is an option of ``setpoint init``."""

    name: Annotated[str | None, option("NAME", "Name of the application.")] = None
    model: Annotated[str | None, option("MODEL", "Model source.")] = None
    rate: Annotated[str | None, option("RATE", "Requests per second, such as 2.5/s.")] = None
    prompt_tokens: Annotated[int | None, option("N", "Typical tokens of a prompt.", min=1)] = None
    output_tokens: Annotated[int | None, option("N", "Typical tokens of an answer.", min=1)] = None
    streaming: Annotated[bool | None, typer.Option("--streaming/--no-streaming", help="Somebody reads along.")] = None
    ttft_p95: Annotated[str | None, option("TIME", "Limit of the time to first token, such as 300ms.")] = None
    itl_p99: Annotated[str | None, option("TIME", "Limit of the gap between tokens, such as 60ms.")] = None
    e2e_p95: Annotated[str | None, option("TIME", "Limit of the whole answer, such as 2s.")] = None
    burst_rate: Annotated[str | None, option("RATE", "Rate of a burst, such as 3x or 9/s.")] = None
    objective: Annotated[str | None, option("NAME", "max_goodput, max_throughput, min_latency or min_cost.")] = None
    usd_per_hour: Annotated[float | None, option("USD", "What the hardware costs.")] = None

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


def seen_text(
    answers: InitAnswers,
    *,
    from_trace: Path | None,
    trace_format: str | None,
    from_metrics: str | None,
    interval_s: float | None,
    api_key: str | None = None,
) -> str:
    """The text of a file that describes what production shows, with the answers for what it cannot show.

    api_key: of the server whose metrics are looked at. Raises ``BadInput`` for a source that cannot be read, ``FlagError`` for
    an answer that the source gives itself.
    """
    from setpoint.loop.init_from import requirement_from_trace
    from setpoint.loop.init_from_metrics import INTERVAL_S, requirement_from_metrics

    source = "--from-trace" if from_trace is not None else "--from-metrics"
    for field, option_name in SHOWN_BY_PRODUCTION.items():
        if getattr(answers, field) is not None:
            raise FlagError(f"{option_name}: {source} shows it; leave it out, and change the file if need be")
    slo = _limits(answers) or None
    if from_trace is not None:
        model = answers.model or DEFAULT_MODEL
        return requirement_from_trace(
            from_trace, format=trace_format, name=answers.name, model=model, rate=answers.rate, slo=slo
        )
    assert from_metrics is not None
    return requirement_from_metrics(
        from_metrics,
        interval_s=INTERVAL_S if interval_s is None else interval_s,
        headers={} if api_key is None else {"authorization": f"Bearer {api_key}"},
        name=answers.name,
        model=answers.model,
        rate=answers.rate,
        slo=slo,
    )


def _limits(answers: InitAnswers) -> dict[str, dict[str, str]]:
    """The limits that were given, as in YAML."""
    given = {"ttft": ("p95", answers.ttft_p95), "itl": ("p99", answers.itl_p99), "e2e": ("p95", answers.e2e_p95)}
    return {metric: {statistic: limit} for metric, (statistic, limit) in given.items() if limit is not None}


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
    try:
        return render_requirement(
            name=answers.name if answers.name is not None else "my-application",
            model=answers.model if answers.model is not None else DEFAULT_MODEL,
            prompt_tokens=answers.prompt_tokens or 128,
            output_tokens=answers.output_tokens or 64,
            streaming=streaming,
            rate=answers.rate if answers.rate is not None else DEFAULT_RATE,
            burst_rate=answers.burst_rate,
            slo=_limits(answers),
            objective=answers.objective or "max_goodput",
            usd_per_hour=answers.usd_per_hour,
        )
    except RequirementError as error:
        problem = error.problems[0]
        raise FlagError(
            f"{option_for(problem.field, INIT_OPTIONS)}: found {problem.found}; allowed: {problem.allowed}"
        ) from error
