"""The command line. It parses, calls, prints and turns a user's mistakes into one line and exit code 2."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from pydantic import ValidationError

from setpoint import __version__
from setpoint.policy.configuration import BatchingMode, ServingConfig
from setpoint.record import EXIT_BAD_INPUT

app = typer.Typer(
    help="You set the latency. The loop holds it. Serve large language models at a declared operating point.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    epilog="Start with: `setpoint init my.yaml`, then `setpoint tune my.yaml`.",
)


class BadInput(Exception):
    """A mistake of the user's; the message is all they need."""


def main() -> None:
    """Entry point: exit codes 0 met, 1 missed, 2 bad input, 3 inconclusive, 4 invalid run."""
    try:
        code = app(standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        code = 130
    except click.ClickException as error:
        error.show()
        code = EXIT_BAD_INPUT
    except _user_mistakes() as error:
        print(f"setpoint: {error}", file=sys.stderr)
        code = EXIT_BAD_INPUT
    sys.exit(code or 0)


def _user_mistakes() -> tuple[type[Exception], ...]:
    """Errors that need no traceback. Imported late: ``--help`` must not wait for them."""
    from setpoint.engine.request import EngineFailed
    from setpoint.measure.probe import ProbeError
    from setpoint.measure.target import TargetError
    from setpoint.report.files import RunFolderError
    from setpoint.requirement import RequirementError

    return (BadInput, RequirementError, EngineFailed, ProbeError, TargetError, RunFolderError)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"setpoint {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    pass


SERVE_EXAMPLES = """Examples:

- `setpoint serve my.yaml --config runs/my` : the configuration that `tune` chose

- `setpoint serve smollm2-135m --port 8080 --mode continuous --max-running 32`

- `setpoint serve ./model.gguf --served-model-name my-model --api-key secret`
"""


@app.command(epilog=SERVE_EXAMPLES)
def serve(
    subject: Annotated[str, typer.Argument(metavar="REQUIREMENT.yaml|MODEL", help="A requirement, or a model source.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    served_model_name: Annotated[str | None, typer.Option(help="The name clients ask for.")] = None,
    max_model_len: Annotated[int | None, typer.Option(min=1, help="Most tokens of prompt and answer.")] = None,
    api_key: Annotated[
        list[str] | None, typer.Option(envvar="SETPOINT_API_KEY", help="A key clients must send; may be repeated.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="A run folder (its chosen configuration), a JSON file, or JSON text.")
    ] = None,
    mode: Annotated[BatchingMode | None, typer.Option(help="Batching mode.")] = None,
    max_running: Annotated[int | None, typer.Option(min=1, help="Most requests in a step.")] = None,
    token_budget: Annotated[int | None, typer.Option(min=1, help="Most new tokens in a step.")] = None,
    batch_wait_s: Annotated[float | None, typer.Option(min=0, help="How long 'static' waits to fill a batch.")] = None,
    max_waiting: Annotated[int | None, typer.Option(min=0, help="Bound of the queue.")] = None,
    kv_cache_tokens: Annotated[int | None, typer.Option(min=64, help="Size of the KV cache in tokens.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Compute threads; default: every core.")] = None,
) -> int:
    """An OpenAI-compatible server held at the requirement."""
    from setpoint.loop.configs import read_config
    from setpoint.loop.serve import serve as run_serve

    changes: dict[str, Any] = {
        "mode": mode,
        "max_running": max_running,
        "token_budget": token_budget,
        "batch_wait_s": batch_wait_s,
        "max_waiting": max_waiting,
        "kv_cache_tokens": kv_cache_tokens,
        "threads": threads,
    }
    chosen = read_config(config) if config else ServingConfig()
    try:
        chosen = ServingConfig.model_validate(
            chosen.model_dump() | {key: value for key, value in changes.items() if value is not None}
        )
    except ValidationError as error:
        raise BadInput(str(error)) from error
    return run_serve(
        subject,
        chosen,
        host=host,
        port=port,
        served_name=served_model_name,
        max_model_len=max_model_len,
        api_keys=api_key or (),
    )


TUNE_EXAMPLES = """Examples:

- `setpoint tune my.yaml --output runs/my`

- `setpoint tune my.yaml --duration 60 --seed 7`
"""


@app.command(epilog=TUNE_EXAMPLES)
def tune(
    requirement: Annotated[Path, typer.Argument(metavar="REQUIREMENT.yaml", help="What the application needs.")],
    output: Annotated[Path | None, typer.Option(help="Run folder; default: runs/NAME.")] = None,
    duration: Annotated[float | None, typer.Option(min=1, help="Seconds of the sustained phase of each candidate.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of arrivals, lengths and prompts.")] = 0,
    only: Annotated[list[str] | None, typer.Option(help="Measure only this candidate; may be repeated.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print report.json instead of the table.")] = False,
) -> int:
    """The loop: serve each candidate, measure it, choose; the report shows why."""
    from setpoint.loop.candidates import candidates_for
    from setpoint.loop.schedule import schedule_for
    from setpoint.loop.tune import TuneOptions
    from setpoint.loop.tune import tune as run_tune
    from setpoint.requirement import load_requirement

    needed = load_requirement(requirement)
    grid = dict(candidates_for(needed))
    for name in only or ():
        if name not in grid:
            raise BadInput(f"--only {name}: not a candidate; the candidates are {', '.join(grid)}")
    chosen = {name: config for name, config in grid.items() if not only or name in only}
    folder = output or Path("runs") / needed.name
    options = TuneOptions(output=folder, schedule=schedule_for(needed, sustained_s=duration), seed=seed)
    report = run_tune(requirement, chosen, options)
    _show(report, folder, json_output=json_output)
    return report.exit_code()


MEASURE_EXAMPLES = """Examples:

- `setpoint measure http://127.0.0.1:8000 --rate 2/s --duration 30s` : somebody's server, Poisson arrivals

- `setpoint measure http://127.0.0.1:8000 --rate 4/s --burst-rate 12/s --prompt-tokens 200 --output runs/a`

- `setpoint measure http://127.0.0.1:8000 --requirement my.yaml` : its profile and SLOs; the exit code is the verdict

- `setpoint measure my.yaml --config runs/my` : serve it ourselves, measure, stop
"""


@app.command(epilog=MEASURE_EXAMPLES)
def measure(
    subject: Annotated[str, typer.Argument(metavar="URL|REQUIREMENT.yaml", help="A running server, or a requirement.")],
    requirement: Annotated[Path | None, typer.Option(help="Profile and SLOs for a URL; the options below change it.")] = None,
    model: Annotated[str | None, typer.Option(help="Model to ask for; default: the server's first.")] = None,
    rate: Annotated[str | None, typer.Option(help="Offered load, such as 2.5/s or 90/min.")] = None,
    arrival: Annotated[str | None, typer.Option(help="constant, poisson or gamma.")] = None,
    cv: Annotated[float | None, typer.Option(help="Coefficient of variation of gamma arrivals.")] = None,
    duration: Annotated[str | None, typer.Option(help="Length of the sustained phase, such as 30s.")] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Instead of --duration: about so many requests.")] = None,
    warmup: Annotated[str, typer.Option(help="Length of the warm-up, whose figures are dropped.")] = "5s",
    prompt_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of every prompt.")] = None,
    output_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of every answer.")] = None,
    shared_prefix_tokens: Annotated[int | None, typer.Option(min=0, help="First tokens all prompts share.")] = None,
    streaming: Annotated[bool | None, typer.Option("--streaming/--no-streaming", help="Ask for token streams.")] = None,
    burst_rate: Annotated[str | None, typer.Option(help="Add a burst of this total rate, such as 10/s or 3x.")] = None,
    burst_duration: Annotated[str, typer.Option(help="Length of the burst.")] = "10s",
    endpoint: Annotated[str, typer.Option(help="completions or chat.")] = "completions",
    max_in_flight: Annotated[int | None, typer.Option(min=1, help="Client cap; what it holds back counts as waiting.")] = None,
    ignore_eos: Annotated[bool, typer.Option(help="Ask for exactly the planned number of output tokens.")] = True,
    api_key: Annotated[str | None, typer.Option(envvar="SETPOINT_API_KEY", help="Sent as a bearer token.")] = None,
    header: Annotated[list[str] | None, typer.Option(help="'Name: value', sent with every request.")] = None,
    config: Annotated[str | None, typer.Option(help="With a requirement: what to serve it with (see serve).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of arrivals, lengths and prompts.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Run folder; default: none is written.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print report.json instead of the table.")] = False,
) -> int:
    """Sustained and burst load on a server; TTFT, ITL, E2E, spread, goodput. The exit code is the SLO verdict."""
    from setpoint.loop.configs import read_config
    from setpoint.loop.describe import LoadFlags, described_requirement, schedule_from, seconds
    from setpoint.loop.measure import MeasureOptions, measure_own, measure_url
    from setpoint.measure.target import Target
    from setpoint.requirement import load_requirement

    is_file = subject.lower().endswith((".yaml", ".yml"))
    base = load_requirement(Path(subject)) if is_file else load_requirement(requirement) if requirement else None
    flags = LoadFlags(
        rate, arrival, cv, prompt_tokens, output_tokens, shared_prefix_tokens, streaming, burst_rate, burst_duration
    )
    needed = described_requirement(base, flags)
    length_s = seconds("duration", duration) if duration else None
    schedule = schedule_from(needed, length_s, requests, seconds("warmup", warmup))
    options = MeasureOptions(
        schedule, output, seed, _choice("endpoint", endpoint), max_in_flight, ignore_eos, quiet=json_output
    )
    if is_file:
        report = measure_own(Path(subject), needed, read_config(config) if config else None, options)
    else:
        target = Target(subject, model=model or "", api_key=api_key, headers=_headers(header or []))
        report = measure_url(target, needed, options)
    _show(report, output, json_output=json_output)
    return report.exit_code()


def _choice(option: str, value: str) -> Any:
    from setpoint.measure.options import Endpoint

    try:
        return Endpoint(value)
    except ValueError:
        raise BadInput(f"--{option} {value}: allowed are {', '.join(Endpoint)}") from None


def _headers(lines: list[str]) -> dict[str, str]:
    pairs = [line.partition(":") for line in lines]
    for name, colon, _ in pairs:
        if not colon or not name.strip():
            raise BadInput(f"--header {name!r}: write it as 'Name: value'")
    return {name.strip(): value.strip() for name, _, value in pairs}


INIT_EXAMPLES = """Examples:

- `setpoint init my.yaml` : asks a few questions

- `setpoint init my.yaml --example coding-assistant` : starts from a shipped example

- `setpoint init my.yaml --rate 3/s --prompt-tokens 200 --output-tokens 80 --ttft-p95 300ms --itl-p99 60ms`
"""


@app.command(epilog=INIT_EXAMPLES)
def init(
    file: Annotated[Path, typer.Argument(help="The requirement file to write.")] = Path("requirement.yaml"),
    example: Annotated[str | None, typer.Option(help="Copy a shipped example.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the application.")] = None,
    model: Annotated[str | None, typer.Option(help="Model source.")] = None,
    rate: Annotated[str | None, typer.Option(help="Requests per second, such as 2.5/s.")] = None,
    prompt_tokens: Annotated[int | None, typer.Option(min=1, help="Typical tokens of a prompt.")] = None,
    output_tokens: Annotated[int | None, typer.Option(min=1, help="Typical tokens of an answer.")] = None,
    streaming: Annotated[bool | None, typer.Option("--streaming/--no-streaming", help="Somebody reads along.")] = None,
    ttft_p95: Annotated[str | None, typer.Option(help="Limit of the time to first token, such as 300ms.")] = None,
    itl_p99: Annotated[str | None, typer.Option(help="Limit of the gap between tokens, such as 60ms.")] = None,
    e2e_p95: Annotated[str | None, typer.Option(help="Limit of the whole answer, such as 2s.")] = None,
    burst_rate: Annotated[str | None, typer.Option(help="Rate of a burst, such as 3x or 9/s.")] = None,
    objective: Annotated[str | None, typer.Option(help="max_goodput, max_throughput, min_latency or min_cost.")] = None,
    usd_per_hour: Annotated[float | None, typer.Option(help="What the hardware costs.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> int:
    """Write a commented requirement file, from a few questions or from options."""
    from setpoint.loop.init import InitAnswers, init_text

    if file.exists() and not force:
        raise BadInput(f"{file}: exists already; choose another name or add --force")
    given = InitAnswers(
        name, model, rate, prompt_tokens, output_tokens, streaming,
        ttft_p95, itl_p99, e2e_p95, burst_rate, objective, usd_per_hour,
    )  # fmt: skip
    text = init_text(given, example=example, ask=sys.stdin.isatty() and given.empty and example is None)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{file}: cannot be written: {error.strerror}") from error
    print(f"wrote {file}; next: setpoint tune {file}")
    return 0


def _show(report: Any, folder: Path | None, *, json_output: bool) -> None:
    from rich.console import Console

    from setpoint.loop.console import say
    from setpoint.report.terminal import render_terminal

    if json_output:
        print(report.to_json())
    else:
        render_terminal(report, Console())
    if folder is not None:
        say(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    main()
