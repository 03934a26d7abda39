"""The command line. It parses, calls, prints and turns a user's mistakes into one line and exit code 2.

Nothing heavy is imported before a command runs: ``--help`` must not wait for an engine.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from setpoint import __version__
from setpoint.loop.errors import BadInput, ServerDied
from setpoint.loop.interrupts import EXIT_INTERRUPTED
from setpoint.loop.lifeline import end_with_stdin
from setpoint.policy.configuration import BatchingMode
from setpoint.record import EXIT_BAD_INPUT, EXIT_INVALID, Report

EXIT_CODES = "Exit codes: 0 SLOs met, 1 missed, 2 bad input, 3 inconclusive, 4 invalid run."

app = typer.Typer(
    help="You set the latency. The loop holds it. Serve large language models at a declared operating point.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    epilog="Start with: `setpoint init my.yaml`, then `setpoint tune my.yaml`.",
)

# The base of what Typer raises for a wrong option. Typer has Click inside it or beside it, depending on its version.
USAGE_ERROR: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def main() -> None:
    """Entry point: exit codes 0 met, 1 missed, 2 bad input, 3 inconclusive, 4 invalid run, 130 interrupted."""
    try:
        code = app(standalone_mode=False) or 0
    except (typer.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except USAGE_ERROR as error:
        error.show()  # type: ignore[attr-defined]
        code = EXIT_BAD_INPUT
    except ServerDied as error:
        print(f"setpoint: {error}", file=sys.stderr)
        code = EXIT_INVALID
    except _user_mistakes() as error:
        print(f"setpoint: {error}", file=sys.stderr)
        code = EXIT_BAD_INPUT
    if code == EXIT_INTERRUPTED:
        print("stopped", file=sys.stderr)
    sys.exit(code)


def _user_mistakes() -> tuple[type[Exception], ...]:
    """Errors that need no traceback; ``OSError`` is what the machine refuses: a full disk, a name that is too long."""
    from setpoint.engine.request import EngineFailed
    from setpoint.measure.probe import ProbeError
    from setpoint.measure.target import TargetError
    from setpoint.report.files import RunFolderError
    from setpoint.requirement import RequirementError

    return (BadInput, RequirementError, EngineFailed, ProbeError, TargetError, RunFolderError, OSError)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"setpoint {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    pass


LISTEN, BATCHING, TARGET, LOAD, REQUESTS = "Listening", "Batching", "Target", "Load", "Requests"
CONFIG_KINDS = "RUN|FILE|JSON"
SEED_HELP = "Seed of arrivals, lengths and prompts."


def _option(metavar: str | None, words: str, panel: str | None = None, **more: Any) -> Any:
    """An option as ``--help`` shows it: a short word for its value, and its panel."""
    return typer.Option(metavar=metavar, help=words, rich_help_panel=panel, **more)


SERVE_EXAMPLES = """Examples:

- `setpoint serve my.yaml --config runs/my` : the configuration that `tune` chose

- `setpoint serve smollm2-135m --port 8080 --mode continuous --max-running 32`

- `setpoint serve ./model.gguf --served-model-name my-model --api-key secret`
"""


@app.command(epilog=SERVE_EXAMPLES)
def serve(
    subject: Annotated[str, typer.Argument(metavar="REQUIREMENT.yaml|MODEL", help="A requirement, or a model source.")],
    host: Annotated[str, _option("HOST", "Address to listen on.", LISTEN)] = "127.0.0.1",
    port: Annotated[int, _option("N", "Port; 0 takes a free one.", LISTEN, min=0, max=65535)] = 8000,
    served_model_name: Annotated[str | None, _option("NAME", "The name clients ask for.", LISTEN)] = None,
    max_model_len: Annotated[int | None, _option("N", "Most tokens of prompt and answer.", LISTEN, min=1)] = None,
    api_key: Annotated[
        list[str] | None,
        _option("KEY", "A key clients must send; may be repeated.", LISTEN, envvar="SETPOINT_API_KEY"),
    ] = None,
    config: Annotated[
        str | None,
        _option(CONFIG_KINDS, "A run folder (what it chose), a JSON file, or JSON; the options below change it.", BATCHING),
    ] = None,
    mode: Annotated[BatchingMode | None, _option("MODE", "immediate, static, continuous or setpoint.", BATCHING)] = None,
    max_running: Annotated[int | None, _option("N", "Most requests in a step.", BATCHING, min=1)] = None,
    token_budget: Annotated[int | None, _option("N", "Most new tokens in a step.", BATCHING, min=1)] = None,
    batch_wait_s: Annotated[float | None, _option("S", "Seconds 'static' waits for a full batch.", BATCHING, min=0)] = None,
    max_waiting: Annotated[int | None, _option("N", "Bound of the queue.", BATCHING, min=0)] = None,
    kv_cache_tokens: Annotated[int | None, _option("N", "Size of the KV cache in tokens.", BATCHING, min=64)] = None,
    threads: Annotated[int | None, _option("N", "Compute threads; default: every core.", BATCHING, min=1)] = None,
    until_stdin_closes: Annotated[bool, typer.Option(hidden=True)] = False,
) -> int:
    """An OpenAI-compatible server held at the requirement."""
    if until_stdin_closes:
        end_with_stdin()
    if any(not key.strip() for key in api_key or ()):
        raise BadInput("--api-key: found an empty key; leave the option out to serve without keys")
    from setpoint.loop.configs import read_config
    from setpoint.loop.serve import serve as run_serve

    changes = {
        "mode": mode,
        "max_running": max_running,
        "token_budget": token_budget,
        "batch_wait_s": batch_wait_s,
        "max_waiting": max_waiting,
        "kv_cache_tokens": kv_cache_tokens,
        "threads": threads,
    }
    return run_serve(
        subject,
        read_config(config) if config is not None else None,
        changes=changes,
        host=host,
        port=port,
        served_name=served_model_name,
        max_model_len=max_model_len,
        api_keys=api_key or (),
    )


TUNE_EXAMPLES = f"""Examples:

- `setpoint tune my.yaml` : the report goes to runs/NAME

- `setpoint tune my.yaml --output runs/my --duration 60s --seed 7`

- `setpoint tune my.yaml --only static-8 --only continuous-8 --json`

Ctrl-C keeps the candidates that are complete. {EXIT_CODES}
"""


@app.command(epilog=TUNE_EXAMPLES)
def tune(
    requirement: Annotated[Path, typer.Argument(metavar="REQUIREMENT.yaml", help="What the application needs.")],
    output: Annotated[Path | None, _option("DIR", "Run folder; default: runs/NAME.")] = None,
    duration: Annotated[
        str | None, _option("TIME", "Length of each sustained phase, such as 60s; default: what the percentiles take.")
    ] = None,
    seed: Annotated[int, _option("N", SEED_HELP, min=0)] = 0,
    only: Annotated[list[str] | None, _option("CANDIDATE", "Measure only this candidate; may be repeated.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print report.json instead of the table.")] = False,
) -> int:
    """The loop: serve each candidate, measure it, choose; the report shows why."""
    from setpoint.loop.candidates import candidates_for
    from setpoint.loop.describe import seconds
    from setpoint.loop.folder import default_folder
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
    folder = output or default_folder(needed.name)
    sustained_s = seconds("duration", duration, positive=True) if duration is not None else None
    options = TuneOptions(output=folder, schedule=schedule_for(needed, sustained_s=sustained_s), seed=seed)
    tuned = run_tune(requirement, chosen, options)
    _show(tuned.report, folder, json_output=json_output)
    return EXIT_INTERRUPTED if tuned.interrupted else tuned.report.exit_code()


MEASURE_EXAMPLES = f"""Examples:

- `setpoint measure http://127.0.0.1:8000 --rate 2/s --duration 30s` : somebody's server, Poisson arrivals

- `setpoint measure http://127.0.0.1:8000 --rate 4/s --burst-rate 12/s --prompt-tokens 200 --output runs/a`

- `setpoint measure http://127.0.0.1:8000 --requirement my.yaml` : its profile and SLOs; the exit code is the verdict

- `setpoint measure my.yaml --config runs/my` : serve it ourselves, measure, stop

{EXIT_CODES}
"""


@app.command(epilog=MEASURE_EXAMPLES)
def measure(
    subject: Annotated[str, typer.Argument(metavar="URL|REQUIREMENT.yaml", help="A running server, or a requirement.")],
    requirement: Annotated[Path | None, _option("FILE", "Profile and SLOs for a URL; load options change it.", TARGET)] = None,
    config: Annotated[str | None, _option(CONFIG_KINDS, "With a requirement: what to serve it with.", TARGET)] = None,
    model: Annotated[str | None, _option("NAME", "Model to ask for; default: the only one.", TARGET)] = None,
    endpoint: Annotated[str, _option("NAME", "completions or chat.", TARGET)] = "completions",
    api_key: Annotated[str | None, _option("KEY", "Bearer token for a URL.", TARGET, envvar="SETPOINT_API_KEY")] = None,
    header: Annotated[list[str] | None, _option("'NAME: VALUE'", "Sent with every request; may be repeated.", TARGET)] = None,
    rate: Annotated[str | None, _option("RATE", "Offered load, such as 2.5/s or 90/min.", LOAD)] = None,
    arrival: Annotated[str | None, _option("NAME", "constant, poisson or gamma.", LOAD)] = None,
    cv: Annotated[float | None, _option("X", "Coefficient of variation of gamma arrivals.", LOAD)] = None,
    duration: Annotated[str | None, _option("TIME", "Length of the sustained phase, such as 30s.", LOAD)] = None,
    requests: Annotated[int | None, _option("N", "Instead of --duration: about so many.", LOAD, min=1)] = None,
    warmup: Annotated[str, _option("TIME", "Length of the warm-up, whose figures are dropped.", LOAD)] = "5s",
    burst_rate: Annotated[str | None, _option("RATE", "Add a burst of this total rate, such as 10/s or 3x.", LOAD)] = None,
    burst_duration: Annotated[str | None, _option("TIME", "Length of the burst; default: 10s.", LOAD)] = None,
    seed: Annotated[int, _option("N", SEED_HELP, LOAD, min=0)] = 0,
    prompt_tokens: Annotated[int | None, _option("N", "Tokens of every prompt.", REQUESTS, min=1)] = None,
    output_tokens: Annotated[int | None, _option("N", "Tokens of every answer.", REQUESTS, min=1)] = None,
    shared_prefix_tokens: Annotated[int | None, _option("N", "First tokens all prompts share.", REQUESTS, min=0)] = None,
    streaming: Annotated[
        bool | None, typer.Option("--streaming/--no-streaming", help="Ask for token streams.", rich_help_panel=REQUESTS)
    ] = None,
    ignore_eos: Annotated[bool, _option(None, "Ask for exactly the planned number of output tokens.", REQUESTS)] = True,
    max_in_flight: Annotated[int | None, _option("N", "Client cap; what it holds back waits.", REQUESTS, min=1)] = None,
    output: Annotated[Path | None, _option("DIR", "Run folder; default: none is written.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print report.json instead of the table.")] = False,
) -> int:
    """Sustained and burst load on a server; TTFT, ITL, E2E, spread, goodput. The exit code is the SLO verdict."""
    from setpoint.loop.configs import read_config
    from setpoint.loop.describe import LoadFlags, described_requirement, schedule_from, seconds
    from setpoint.loop.measure import MeasureOptions, measure_own, measure_url
    from setpoint.loop.serve import is_requirement
    from setpoint.loop.targets import endpoint_named, target_from
    from setpoint.requirement import load_requirement

    own = is_requirement(subject)
    _refuse_misplaced(own, {"requirement": requirement, "model": model, "header": header}, {"config": config})
    flags = LoadFlags(
        rate, arrival, cv, prompt_tokens, output_tokens, shared_prefix_tokens, streaming, burst_rate, burst_duration
    )
    file = Path(subject) if own else requirement
    needed = described_requirement(load_requirement(file) if file is not None else None, flags)
    length_s = seconds("duration", duration, positive=True) if duration is not None else None
    schedule = schedule_from(needed, length_s, requests, seconds("warmup", warmup))
    options = MeasureOptions(schedule, output, seed, endpoint_named(endpoint), max_in_flight, ignore_eos)
    if own:
        report = measure_own(Path(subject), needed, read_config(config) if config is not None else None, options)
    else:
        report = measure_url(target_from(subject, model, api_key, header or []), needed, options)
    _show(report, output, json_output=json_output)
    return report.exit_code()


def _refuse_misplaced(own: bool, for_url: dict[str, object], for_own: dict[str, object]) -> None:
    """An option that would be ignored is a mistake. Raises ``BadInput``."""
    given = [option for option, value in (for_url if own else for_own).items() if value]
    if given:
        other = "a URL" if own else "a requirement file"
        raise BadInput(f"--{given[0]}: belongs to measuring {other}; leave it out here")


INIT_EXAMPLES = """Examples:

- `setpoint init my.yaml` : asks a few questions

- `setpoint init my.yaml --example coding-assistant` : starts from a shipped example

- `setpoint init my.yaml --rate 3/s --prompt-tokens 200 --output-tokens 80 --ttft-p95 300ms --itl-p99 60ms`
"""


@app.command(epilog=INIT_EXAMPLES)
def init(
    file: Annotated[Path, typer.Argument(help="The requirement file to write.")] = Path("requirement.yaml"),
    example: Annotated[str | None, _option("NAME", "Copy a shipped example.")] = None,
    name: Annotated[str | None, _option("NAME", "Name of the application.")] = None,
    model: Annotated[str | None, _option("MODEL", "Model source.")] = None,
    rate: Annotated[str | None, _option("RATE", "Requests per second, such as 2.5/s.")] = None,
    prompt_tokens: Annotated[int | None, _option("N", "Typical tokens of a prompt.", min=1)] = None,
    output_tokens: Annotated[int | None, _option("N", "Typical tokens of an answer.", min=1)] = None,
    streaming: Annotated[bool | None, typer.Option("--streaming/--no-streaming", help="Somebody reads along.")] = None,
    ttft_p95: Annotated[str | None, _option("TIME", "Limit of the time to first token, such as 300ms.")] = None,
    itl_p99: Annotated[str | None, _option("TIME", "Limit of the gap between tokens, such as 60ms.")] = None,
    e2e_p95: Annotated[str | None, _option("TIME", "Limit of the whole answer, such as 2s.")] = None,
    burst_rate: Annotated[str | None, _option("RATE", "Rate of a burst, such as 3x or 9/s.")] = None,
    objective: Annotated[str | None, _option("NAME", "max_goodput, max_throughput, min_latency or min_cost.")] = None,
    usd_per_hour: Annotated[float | None, _option("USD", "What the hardware costs.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> int:
    """Write a commented requirement file, from a few questions or from options."""
    from setpoint.loop.init import InitAnswers, init_text

    if os.path.lexists(file) and not force:
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
    print(f"wrote {file}; next: setpoint tune {shlex.quote(str(file))}")
    return 0


def _show(report: Report, folder: Path | None, *, json_output: bool) -> None:
    from rich.console import Console

    from setpoint.loop.console import say
    from setpoint.report.terminal import render_terminal

    try:
        if json_output:
            print(report.to_json())
        else:
            render_terminal(report, Console())
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):
        # Whoever read along has seen enough (Rich ends the process then, with the code for a missed SLO); the verdict stands.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if folder is not None:
        say(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    main()
