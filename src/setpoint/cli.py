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


def _show(report: Any, folder: Path, *, json_output: bool) -> None:
    from rich.console import Console

    from setpoint.loop.console import say
    from setpoint.report.terminal import render_terminal

    if json_output:
        print(report.to_json())
    else:
        render_terminal(report, Console())
    say(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    main()
